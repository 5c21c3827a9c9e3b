package main

import "fmt"

// showMemory shows what is live after more and more events of 16 members.
func showMemory(most int, seed uint64) error {
	const members = 16
	fmt.Println(machine())
	o, err := newOurs(members, seed)
	if err != nil {
		return err
	}
	begin := heap()
	var million, first int64
	for at := 1_000; at <= most; at *= 10 {
		live, err := o.live(at)
		if err != nil {
			return err
		}
		r := result{Engine: "dcnode", Members: members, Events: at, Ordered: o.ordered, Heap: live - begin}
		fmt.Printf("n = %d  dcnode    %10d events: %8.2f MiB\n", members, at, float64(r.Heap)/(1<<20))
		if err := keep(r); err != nil {
			return err
		}
		if at == 1_000_000 {
			million = r.Heap
		}
		first = r.Heap
	}
	if million > 0 && first != million {
		fmt.Printf("n = %d  dcnode    %.3f times of that after a million (goal 1.2, and 64 MiB)\n", members, float64(first)/float64(million))
	}
	return babbleMemory(members, begin, seed)
}

// live is the most that is live at one of many instants while the last hundredth of so
// many events is inserted: the window breathes with the rounds.
func (o *ours) live(events int) (most int64, err error) {
	const instants = 20
	for i := range instants {
		for o.at < events-events/100+events/100*(i+1)/instants {
			if err := o.insert(o.make()); err != nil {
				return 0, err
			}
		}
		most = max(most, heap())
	}
	return most, nil
}

// babbleMemory is the same for babble, which keeps everything.
func babbleMemory(members int, begin int64, seed uint64) error {
	b, err := newBabble(members, 20_000, seed)
	if err != nil {
		return err
	}
	begin = heap()
	made := 0
	for at := 1_000; at <= 16_000; at *= 4 {
		for ; made < at; made++ {
			if err := b.h.InsertEventAndRunConsensus(b.make(), true); err != nil {
				return err
			}
		}
		fmt.Printf("n = %d  babble    %10d events: %8.2f MiB\n", members, at, float64(heap()-begin)/(1<<20))
	}
	return nil
}
