package consensus

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// The transcripts in testdata/transcripts are to be read: each line says what comes
// in, what is below it is what the core of one member makes of it. Rewrite them with
// go test -run Transcripts ./consensus -rewrite, and read the difference.
//
//	members N self=ID [every=ROUNDS]  a new core
//	event NAME by=ID on=(NAME,...) [birth=R] [at=T] [tx=TEXT] [aside]
//	                                  an event from elsewhere, the self-parent first;
//	                                  all: the last events of all, but for those aside
//	add NAME...                       events arrive
//	due at=MS [pending]               the threshold clock is asked
//	next NAME at=MS [tx=TEXT]         the member makes its own next event
//	layers N [by=(ID,...)]            N times each other member makes an event on all
//	                                  last ones; they are named by creator and number
//	restart                           a new core is fed what was saved
//	join self=ID                      a new core that is to go on from the last checkpoint
//	feed [but=NAME]                   it is fed all events that are not ancient by it
//	observe on|off
//	reach ID here|away [rtt=MS]
//	status
//
// A transaction roster:1+2+5 is applied as a change to these members, each of weight
// 1, or as 2:3 says.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		s := &script{t: t}
		datadriven.RunTest(t, path, s.run)
	})
}

type script struct {
	t      *testing.T
	core   *Core
	cfg    Config
	saved  []*Event
	all    []*Event // in the order of making
	last   map[uint64]*Event
	cp     *Checkpoint
	events map[string]*Event
	names  map[Hash]string
}

func (s *script) start(self uint64, from *Checkpoint) {
	s.cfg.Self, s.cfg.From = self, from
	c, err := New(s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.core, s.saved = c, nil
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	switch d.Cmd {
	case "members":
		s.events, s.names, s.last, s.all = map[string]*Event{}, map[Hash]string{}, map[uint64]*Event{}, nil
		var n int
		var self uint64
		fmt.Sscan(d.CmdArgs[0].Key, &n)
		d.ScanArgs(t, "self", &self)
		s.cfg = Config{Network: Hash{42}, Roster: testRoster(n)}
		maybe(t, d, "every", &s.cfg.CheckpointEvery)
		s.start(self, nil)
	case "event":
		s.event(d)
	case "add":
		for _, a := range d.CmdArgs {
			if err := s.core.Add(s.events[a.Key]); err != nil {
				fmt.Fprintf(&out, "%s: %v\n", a.Key, err)
			}
		}
		s.ready(&out)
	case "due":
		var at int64
		d.ScanArgs(t, "at", &at)
		now, wait := s.core.Due(at*1_000_000, d.HasArg("pending"))
		switch {
		case now:
			out.WriteString("now\n")
		case wait > 0:
			fmt.Fprintf(&out, "in %d us\n", wait/1000)
		default:
			out.WriteString("when something comes\n")
		}
	case "next":
		s.next(d, &out)
	case "restart":
		saved := s.saved
		s.start(s.cfg.Self, nil)
		for _, e := range saved {
			if err := s.core.Add(e); err != nil {
				fmt.Fprintf(&out, "%s: %v\n", s.names[e.Hash()], err)
			}
		}
		s.ready(&out)
	case "layers":
		s.layers(d, &out)
	case "join":
		var self uint64
		d.ScanArgs(t, "self", &self)
		s.start(self, s.cp)
		s.ready(&out)
	case "feed":
		var held Hash
		for _, name := range values(d, "but") {
			held = s.events[name].Hash()
		}
		s.add(&out, slices.DeleteFunc(slices.Clone(s.all), func(e *Event) bool {
			return e.BirthRound < s.cp.MinBirth || e.Hash() == held || s.core.Has(e.Hash())
		}))
	case "observe":
		s.core.Observe(d.CmdArgs[0].Key == "on")
	case "reach":
		var id uint64
		var rtt int64
		fmt.Sscan(d.CmdArgs[0].Key, &id)
		maybe(t, d, "rtt", &rtt)
		s.core.Reach(id, d.CmdArgs[1].Key == "here", rtt*1_000_000)
	case "status":
		s.status(&out)
	default:
		t.Fatalf("%s: no command %q", d.Pos, d.Cmd)
	}
	if out.Len() == 0 {
		return "ok\n"
	}
	return out.String()
}

// add feeds events one after another and says what comes of it all.
func (s *script) add(out *strings.Builder, events []*Event) {
	var all strings.Builder
	for _, e := range events {
		if err := s.core.Add(e); err != nil {
			fmt.Fprintf(out, "%s: %v\n", s.names[e.Hash()], err)
		}
		s.ready(&all)
	}
	saved, orders := 0, 0
	for line := range strings.Lines(all.String()) {
		switch {
		case strings.HasPrefix(line, "save"):
			saved += len(strings.Fields(line)) - 1
		case strings.HasPrefix(line, "order"):
			if orders++; orders == 1 {
				out.WriteString("first " + line)
			}
		case !strings.HasPrefix(line, "send"):
			out.WriteString(line)
		}
	}
	fmt.Fprintf(out, "%d saved, %d ordered\n", saved, orders)
}

func (s *script) layers(d *datadriven.TestData, out *strings.Builder) {
	var n int
	fmt.Sscan(d.CmdArgs[0].Key, &n)
	by := values(d, "by")
	var made []*Event
	for range n {
		var layer []*Event
		for _, m := range s.core.rules(s.core.Pending()).Roster {
			if m.ID != s.cfg.Self && (by == nil || slices.Contains(by, fmt.Sprint(m.ID))) {
				layer = append(layer, follow(m.ID, s.core.Pending(), s.heads(m.ID)...))
			}
		}
		for _, e := range layer {
			s.name(fmt.Sprintf("%d.%d", e.Creator, e.Seq), e)
		}
		made = append(made, layer...)
		s.quiet(out, layer)
	}
	fmt.Fprintf(out, "pending round %d after %d events\n", s.core.Pending(), len(made))
}

// heads are the last events of all, that of one member first.
func (s *script) heads(of uint64) []*Event {
	var out []*Event
	if p := s.last[of]; p != nil {
		out = append(out, p)
	}
	for id := uint64(1); id < 20; id++ {
		if p := s.last[id]; p != nil && id != of && p.BirthRound >= s.core.minBirth() {
			out = append(out, p)
		}
	}
	return out
}

// quiet feeds events and says only what is not everyday.
func (s *script) quiet(out *strings.Builder, events []*Event) {
	var all strings.Builder
	s.add(&all, events)
	for line := range strings.Lines(all.String()) {
		if !strings.HasPrefix(line, "first") && !strings.HasSuffix(line, "ordered\n") {
			out.WriteString(line)
		}
	}
}

// change applies a transaction if it is a roster.
func (s *script) change(out *strings.Builder, round uint64, tx string) {
	list, ok := strings.CutPrefix(tx, "roster:")
	if !ok {
		return
	}
	var roster []Member
	for entry := range strings.SplitSeq(list, "+") {
		m := Member{Weight: 1}
		fmt.Sscanf(strings.Replace(entry, ":", " ", 1), "%d %d", &m.ID, &m.Weight)
		roster = append(roster, m)
	}
	if err := s.core.Change(round, roster, Params{}); err != nil {
		fmt.Fprintf(out, "round %d: %v\n", round, err)
		return
	}
	fmt.Fprintf(out, "round %d changes the roster to %s from round %d on\n", round, list, round+ChangeDelay)
}

func (s *script) event(d *datadriven.TestData) {
	var by, birth, at uint64
	d.ScanArgs(s.t, "by", &by)
	birth = s.core.Pending()
	if d.HasArg("birth") {
		d.ScanArgs(s.t, "birth", &birth)
	}
	var parents []*Event
	for _, name := range values(d, "on") {
		if name == "all" {
			parents = append(parents, s.heads(by)...)
		} else {
			parents = append(parents, s.events[name])
		}
	}
	e := follow(by, birth, parents...)
	if d.HasArg("at") {
		d.ScanArgs(s.t, "at", &at)
		e.Time = Timestamp(at)
	}
	for _, tx := range values(d, "tx") {
		e.Payload = append(e.Payload, []byte(tx))
	}
	before := s.last[by]
	s.name(d.CmdArgs[0].Key, e)
	if d.HasArg("aside") {
		s.last[by] = before
		s.all = s.all[:len(s.all)-1]
	}
}

func maybe(t *testing.T, d *datadriven.TestData, key string, to any) {
	if d.HasArg(key) {
		d.ScanArgs(t, key, to)
	}
}

// values are those of an argument, none if it is not there.
func values(d *datadriven.TestData, key string) []string {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			return a.Vals
		}
	}
	return nil
}

func (s *script) name(name string, e *Event) {
	s.events[name], s.names[e.Hash()] = e, name
	s.last[e.Creator] = e
	s.all = append(s.all, e)
}

func (s *script) next(d *datadriven.TestData, out *strings.Builder) {
	var at int64
	d.ScanArgs(s.t, "at", &at)
	var payload [][]byte
	for _, tx := range values(d, "tx") {
		payload = append(payload, []byte(tx))
	}
	e := s.core.Next(Timestamp(at), 0, payload)
	if e == nil {
		out.WriteString("none\n")
		return
	}
	s.name(d.CmdArgs[0].Key, e)
	fmt.Fprintf(out, "number %d born in %d at %d on", e.Seq, e.BirthRound, e.Time)
	for _, p := range e.Parents {
		out.WriteString(" " + s.names[p.Hash])
	}
	out.WriteByte('\n')
	if err := s.core.Add(e); err != nil {
		fmt.Fprintln(out, err)
	}
	s.ready(out)
}

func (s *script) ready(out *strings.Builder) {
	for rd, ok := s.core.Ready(); ok; rd, ok = s.core.Ready() {
		s.saved = append(s.saved, rd.Save...)
		s.list(out, "save", rd.Save)
		s.list(out, "send", rd.Send)
		for _, w := range rd.Missing {
			fmt.Fprintf(out, "missing %s by %d, ask %d\n", s.names[w.Hash], w.Creator, w.Child)
		}
		for i := range rd.Checkpoints {
			s.cp = &rd.Checkpoints[i]
			fmt.Fprintf(out, "checkpoint of round %d: %d are ordered, rounds from %d on are open, rosters", s.cp.Round, s.cp.Ordered, s.cp.MinBirth)
			for _, ep := range s.cp.Epochs {
				fmt.Fprintf(out, " of %d from %d on", len(ep.Roster), ep.From)
			}
			out.WriteString(", judges")
			for _, j := range s.cp.Judges {
				out.WriteString(" " + s.names[j.Hash])
			}
			out.WriteByte('\n')
		}
		for _, o := range rd.Ordered {
			for _, tx := range o.Event.Payload {
				s.change(out, o.Round, string(tx))
			}
			fmt.Fprintf(out, "order %d: %s in round %d at %d\n", o.Index, s.names[o.Event.Hash()], o.Round, o.Time)
		}
		s.list(out, "stale", rd.Stale)
		s.core.Advance()
	}
}

func (s *script) list(out *strings.Builder, word string, events []*Event) {
	if len(events) == 0 {
		return
	}
	out.WriteString(word)
	for _, e := range events {
		out.WriteString(" " + s.names[e.Hash()])
	}
	out.WriteByte('\n')
}

func (s *script) status(out *strings.Builder) {
	st := s.core.Status()
	if st.Joining {
		out.WriteString("joining: ")
	}
	fmt.Fprintf(out, "pending round %d, %d ordered, %d in the graph, %d waiting, %d undecided with payload, %d forks\n",
		st.Pending, st.Ordered, st.Live, st.Waiting, st.Busy, st.Forks)
	for _, m := range st.Members {
		fmt.Fprintf(out, "%d: number %d layer %d live %v\n", m.ID, m.Seq, m.Layer, m.Live)
	}
}
