package graph

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// DrawOptions say what Draw shows.
type DrawOptions struct {
	Title     string
	Rules2016 bool // the rounds of the paper of 2016, not those of 2026
}

// Draw writes the graph as an SVG picture: members as columns, time upwards, witnesses
// as squares, judges in gold, forks in red, and a colour for each round received. The
// same graph gives the same bytes. Hover over an event to read what is known of it.
func (g *Graph) Draw(w io.Writer, o DrawOptions) error {
	v := &verdicts{g: g, marks: make([]mark, len(g.Events))}
	if o.Rules2016 {
		if err := v.by2016(); err != nil {
			return err
		}
	} else {
		v.by2026()
	}
	for _, x := range g.Forks() {
		v.marks[x].fork = true
	}
	p := picture{verdicts: v, o: o}
	p.layout()
	if _, err := io.WriteString(w, p.render()); err != nil {
		return fmt.Errorf("write picture: %w", err)
	}
	return nil
}

// standing is how an election stands for a witness.
type standing int

const (
	plain    standing = iota // no witness
	open                     // a witness, undecided
	rejected                 // decided: no judge, not famous
	famous                   // famous, but another of its creator is the judge
	judge
)

// mark is what the rules say of an event, for the picture.
type mark struct {
	standing standing
	rounds   []uint64 // that it is a witness of
	judges   []uint64 // that it is a judge of
	decides  []uint64
	created  uint64 // round created, in the rules of 2016
	received uint64
	time     int64
	place    int // in the order, from 1
	stale    bool
	fork     bool
}

// summary is a line of the table of rounds.
type summary struct {
	round    uint64
	judges   int
	received int
	note     string
}

// verdicts are the marks of a graph and its rounds.
type verdicts struct {
	g     *Graph
	marks []mark
	table []summary
	open  uint64 // the first round that is not decided
}

func (v *verdicts) by2026() {
	res := v.g.Order()
	place := 0
	v.open = 1
	for _, r := range res.Rounds {
		for _, row := range r.Rows {
			if row.Round == r.Round && row.First == row.Index {
				m := &v.marks[row.Index]
				m.standing = max(m.standing, rejected)
				m.rounds = append(m.rounds, r.Round)
			}
		}
		for _, j := range r.Judges {
			m := &v.marks[j]
			m.standing = judge
			m.judges = append(m.judges, r.Round)
		}
		v.marks[r.Decider].decides = append(v.marks[r.Decider].decides, r.Round)
		for _, x := range r.Received {
			place++
			m := &v.marks[x.Index]
			m.received, m.time, m.place = r.Round, x.Time, place
		}
		v.table = append(v.table, summary{r.Round, len(r.Judges), len(r.Received), note(r)})
		v.open = r.Round + 1
	}
	for _, row := range res.Open {
		if row.Round == v.open && row.First == row.Index {
			m := &v.marks[row.Index]
			m.standing = max(m.standing, open)
			m.rounds = append(m.rounds, v.open)
		}
	}
	if n := len(res.Rounds); n > 0 {
		for x, e := range v.g.Events {
			v.marks[x].stale = v.marks[x].received == 0 && e.Birth < res.Rounds[n-1].MinBirth
		}
	}
}

// note names what is unusual about a round.
func note(r Round) string {
	var notes []string
	if r.Late {
		notes = append(notes, "late")
	}
	if r.Copied {
		notes = append(notes, "copied")
	}
	return strings.Join(notes, ", ")
}

func (v *verdicts) by2016() error {
	verdicts, err := v.g.Order2016()
	if err != nil {
		return err
	}
	v.open = 1
	for x, d := range verdicts {
		m := &v.marks[x]
		m.created, m.received, m.time, m.place = d.Round, d.RoundReceived, d.Time, d.Place+1
		if !d.Witness {
			continue
		}
		m.rounds = []uint64{d.Round}
		switch {
		case d.Judge:
			m.standing, m.judges = judge, m.rounds
			v.open = max(v.open, d.Round+1)
		case d.Fame == Famous:
			m.standing = famous
		case d.Fame == NotFamous:
			m.standing = rejected
		default:
			m.standing = open
		}
	}
	for r := uint64(1); r < v.open; r++ {
		s := summary{round: r}
		for _, d := range verdicts {
			s.judges += bit(d.Judge && d.Round == r)
			s.received += bit(d.RoundReceived == r)
		}
		v.table = append(v.table, s)
	}
	return nil
}

// tooltip tells all that is known of an event.
func (v *verdicts) tooltip(x int, rules2016 bool) string {
	e, m := v.g.Events[x], v.marks[x]
	lines := []string{fmt.Sprintf("event %d by member %d", e.ID, e.Creator)}
	if rules2016 {
		lines = append(lines, fmt.Sprintf("round %d, created at %d", m.created, e.Time))
	} else {
		lines = append(lines, fmt.Sprintf("born in round %d, created at %d", e.Birth, e.Time))
	}
	if len(m.rounds) > 0 {
		lines = append(lines, "witness of round "+numbers(m.rounds)+", "+v.election(m, rules2016))
	}
	if !slices.Equal(m.judges, m.rounds) && len(m.judges) > 0 {
		lines = append(lines, "judge of round "+numbers(m.judges))
	}
	if len(m.decides) > 0 {
		lines = append(lines, "decides round "+numbers(m.decides))
	}
	switch {
	case m.received > 0:
		lines = append(lines, fmt.Sprintf("received in round %d, consensus time %d, place %d", m.received, m.time, m.place))
	case m.stale:
		lines = append(lines, "stale: never to be received")
	default:
		lines = append(lines, "not received yet")
	}
	if m.fork {
		lines = append(lines, "fork: its creator made another event in its place")
	}
	return strings.Join(append(lines, v.parents(e)), "\n")
}

func (v *verdicts) election(m mark, rules2016 bool) string {
	switch {
	case m.standing == open:
		return "undecided"
	case m.standing == rejected && rules2016:
		return "not famous"
	case m.standing == rejected:
		return "not chosen as judge"
	case m.standing == famous:
		return "famous, but its creator's other one is the judge"
	case rules2016:
		return "famous"
	}
	return "chosen as judge"
}

func (v *verdicts) parents(e Event) string {
	if len(e.Parents) == 0 {
		return "no parents"
	}
	text := "parents " + join(e.Parents, func(q int) string { return strconv.FormatInt(v.g.Events[q].ID, 10) })
	if e.SelfParent == None {
		text += " (no self-parent)"
	}
	return text
}

func numbers(list []uint64) string {
	return join(list, func(n uint64) string { return strconv.FormatUint(n, 10) })
}

// roster is every member of the graph with the stake it has in round 1, or that of the
// first rules that name it.
func (g *Graph) roster() []Member {
	var out []Member
	for _, id := range g.MemberIDs() {
		for _, r := range g.Rules {
			if k := slices.IndexFunc(r.Members, func(m Member) bool { return m.ID == id }); k >= 0 {
				out = append(out, r.Members[k])
				break
			}
		}
	}
	return out
}
