package order

import (
	"crypto/ed25519"
	"sync"

	"github.com/dcnode/dcnode/consensus"
)

// inbox is what waits for the loop: events whose signature is checked, and calls that
// nobody waits for.
type inbox struct {
	mu    sync.Mutex
	list  []arrival
	ready chan<- struct{}
}

// arrival is a checked event and who sent it to this member, or a call.
type arrival struct {
	ev   *consensus.Event
	hash consensus.Hash
	key  ed25519.PublicKey // that its signature was checked with
	from uint64
	size int    // of what came unasked, in bytes: room that its sender gets back
	call func() // instead of an event
	lot  *lot   // what it came with; may be nil
}

func (b *inbox) put(as ...arrival) {
	b.mu.Lock()
	b.list = append(b.list, as...)
	b.mu.Unlock()
	signal(b.ready)
}

// post has f called in the loop and waits for nothing.
func (b *inbox) post(f func()) { b.put(arrival{call: f}) }

func (b *inbox) take() []arrival {
	b.mu.Lock()
	defer b.mu.Unlock()
	as := b.list
	b.list = nil
	return as
}

// lot is the events of one reply. They are checked by many and reach the loop
// together, in their order: parents first.
type lot struct {
	inbox *inbox

	mu   sync.Mutex
	left int // not checked yet
	got  []arrival

	fresh int      // that the hashgraph took; the loop's
	here  int      // that it has looked at; the loop's
	ended chan int // of size 1: how many were fresh
}

func newLot(b *inbox, n int) *lot {
	return &lot{inbox: b, left: n, got: make([]arrival, n), ended: make(chan int, 1)}
}

// checked notes what became of the i-th event; ev is nil if it was refused.
func (t *lot) checked(i int, a arrival) {
	a.lot = t
	t.mu.Lock()
	t.got[i] = a
	t.left--
	done := t.left == 0
	t.mu.Unlock()
	if done {
		t.inbox.put(t.got...)
	}
}

// looked counts an event of the lot that the loop has dealt with.
func (t *lot) looked(fresh bool) {
	if fresh {
		t.fresh++
	}
	if t.here++; t.here == len(t.got) {
		t.ended <- t.fresh
	}
}
