package consensus

// none is the place of no event, and the slot of no member.
const none = -1

// node is an event in the graph.
type node struct {
	ev     *Event
	hash   Hash
	slot   int // of its creator
	layer  uint64
	parent bool // of an event in the graph
	done   bool // ordered or stale
}

// dag holds the events that are not yet far behind, in the order in which they
// entered, parents first. A place is an event's number in that order since the
// beginning; places below base have left.
type dag struct {
	n     int // slots
	base  int
	nodes []node
	known []int // n for each event: place of the last event of each member at or below it
	index map[Hash]int
}

func (d *dag) len() int { return d.base + len(d.nodes) }

func (d *dag) at(x int) *node { return &d.nodes[x-d.base] }

func (d *dag) find(h Hash) int {
	if x, ok := d.index[h]; ok {
		return x
	}
	return none
}

// lasts is the row of the last event of each member at or below x.
func (d *dag) lasts(x int) []int {
	o := (x - d.base) * d.n
	return d.known[o : o+d.n : o+d.n]
}

// layerOf is the layer of the event at a place, 0 if there is none any more.
func (d *dag) layerOf(x int) uint64 {
	if x < d.base {
		return 0
	}
	return d.at(x).layer
}

// later chooses the last of two events of one member: the higher layer, and of one
// layer the one that came later. On one chain that is the one farther up; of two
// branches it is the one that counts for more.
func (d *dag) later(x, y int) int {
	lx, ly := d.layerOf(x), d.layerOf(y)
	if lx > ly || lx == ly && x > y {
		return x
	}
	return y
}

// add appends an event whose parents are at the given places. Its layer is for the
// caller to set, by its row.
func (d *dag) add(v node, parents []int) int {
	x := d.len()
	d.nodes = append(d.nodes, v)
	if len(parents) == 0 {
		for range d.n {
			d.known = append(d.known, none)
		}
	} else {
		d.known = append(d.known, d.lasts(parents[0])...)
	}
	row := d.lasts(x)
	for i, p := range parents {
		d.at(p).parent = true
		if i == 0 {
			continue
		}
		for m, k := range d.lasts(p) {
			if k != row[m] {
				row[m] = d.later(row[m], k)
			}
		}
	}
	d.index[v.hash] = x
	return x
}

// widen makes room for more slots.
func (d *dag) widen(n int) {
	if n <= d.n {
		return
	}
	known := make([]int, 0, len(d.nodes)*n)
	for i := range d.nodes {
		known = append(known, d.lasts(d.base+i)...)
		for range n - d.n {
			known = append(known, none)
		}
	}
	d.n, d.known = n, known
}

// forget drops the places below base, and calls gone for each of their events.
func (d *dag) forget(base int, gone func(v *node)) {
	k := base - d.base
	if k <= 0 {
		return
	}
	for i := range d.nodes[:k] {
		delete(d.index, d.nodes[i].hash)
		gone(&d.nodes[i])
	}
	m := copy(d.nodes, d.nodes[k:])
	clear(d.nodes[m:])
	d.nodes = d.nodes[:m]
	d.known = d.known[:copy(d.known, d.known[k*d.n:])]
	d.base = base
}
