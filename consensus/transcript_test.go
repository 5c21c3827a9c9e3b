package consensus

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// The transcripts in testdata/transcripts are to be read: each line says what comes
// in, what is below it is what the core of one member makes of it. Rewrite them with
// go test -run Transcripts ./consensus -rewrite, and read the difference.
//
//	members N self=ID                 a new core
//	event NAME by=ID on=(NAME,...) [birth=R] [at=T] [tx=TEXT]
//	                                  an event from elsewhere, the self-parent first
//	add NAME...                       events arrive
//	due at=MS [pending]               the threshold clock is asked
//	next NAME at=MS [tx=TEXT]         the member makes its own next event
//	restart                           a new core is fed what was saved
//	status
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		s := &script{t: t}
		datadriven.RunTest(t, path, s.run)
	})
}

type script struct {
	t      *testing.T
	core   *Core
	n      int
	self   uint64
	saved  []*Event
	events map[string]*Event
	names  map[Hash]string
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	switch d.Cmd {
	case "members":
		s.events, s.names, s.saved = map[string]*Event{}, map[Hash]string{}, nil
		fmt.Sscan(d.CmdArgs[0].Key, &s.n)
		d.ScanArgs(t, "self", &s.self)
		s.core = testCore(t, s.n, s.self)
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
		s.core = testCore(t, s.n, s.self)
		for _, e := range s.saved {
			if err := s.core.Add(e); err != nil {
				fmt.Fprintf(&out, "%s: %v\n", s.names[e.Hash()], err)
			}
		}
		s.saved = nil
		s.ready(&out)
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

func (s *script) event(d *datadriven.TestData) {
	var by, birth, at uint64
	d.ScanArgs(s.t, "by", &by)
	birth = s.core.Pending()
	if d.HasArg("birth") {
		d.ScanArgs(s.t, "birth", &birth)
	}
	var parents []*Event
	for _, name := range values(d, "on") {
		parents = append(parents, s.events[name])
	}
	e := follow(by, birth, parents...)
	if d.HasArg("at") {
		d.ScanArgs(s.t, "at", &at)
		e.Time = Timestamp(at)
	}
	for _, tx := range values(d, "tx") {
		e.Payload = append(e.Payload, []byte(tx))
	}
	s.name(d.CmdArgs[0].Key, e)
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
}

func (s *script) next(d *datadriven.TestData, out *strings.Builder) {
	var at int64
	d.ScanArgs(s.t, "at", &at)
	var payload [][]byte
	for _, tx := range values(d, "tx") {
		payload = append(payload, []byte(tx))
	}
	e := s.core.Next(Timestamp(at), 0, payload)
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
		for _, o := range rd.Ordered {
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
	fmt.Fprintf(out, "pending round %d, %d ordered, %d in the graph, %d waiting, %d undecided with payload, %d forks\n",
		st.Pending, st.Ordered, st.Live, st.Waiting, st.Busy, st.Forks)
	for _, m := range st.Members {
		fmt.Fprintf(out, "%d: number %d layer %d live %v\n", m.ID, m.Seq, m.Layer, m.Live)
	}
}
