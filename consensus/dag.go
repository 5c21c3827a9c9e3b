package consensus

// none is the place of no event.
const none = -1

// node is an event in the graph.
type node struct {
	ev     *Event
	hash   Hash
	member int
	layer  uint64
	parent bool // of an event in the graph
	done   bool // ordered or stale
}

// dag holds the events that are not yet far behind, in the order in which they
// entered, parents first. A place is an event's number in that order since the
// beginning; places below base have left.
type dag struct {
	n     int
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

// add appends an event whose parents are at the given places.
func (d *dag) add(v node, parents []int) int {
	x := d.len()
	d.nodes = append(d.nodes, v)
	for range d.n {
		d.known = append(d.known, none)
	}
	row := d.lasts(x)
	for _, p := range parents {
		d.at(p).parent = true
		for m, k := range d.lasts(p) {
			row[m] = d.later(row[m], k)
		}
	}
	row[v.member] = x
	d.index[v.hash] = x
	return x
}

// forget drops the places below base.
func (d *dag) forget(base int) {
	k := base - d.base
	if k <= 0 {
		return
	}
	for i := range d.nodes[:k] {
		delete(d.index, d.nodes[i].hash)
	}
	m := copy(d.nodes, d.nodes[k:])
	clear(d.nodes[m:])
	d.nodes = d.nodes[:m]
	d.known = d.known[:copy(d.known, d.known[k*d.n:])]
	d.base = base
}
