package ledgertest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// Event is one event of the order with its transactions as bytes, some of which may
// be none.
type Event struct {
	Place ledger.Place
	Txs   [][]byte
}

// Script is a world and what was ordered in it.
type Script struct {
	Seed     uint64 // that it was made from; the replicas are reloaded and cloned by it
	Network  [32]byte
	Rules    ledger.Rules
	Founders []ledger.Member
	Events   []Event
}

// String tells a script as a transcript: a line for each event, and one for each of
// its transactions with what came of it.
func (s *Script) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# seed %d, %d events; bid window %d ms, accept %d ms, copy %d ms, lease %d ms, vote %d ms\n", s.Seed, len(s.Events),
		s.Rules.BidWindow/ledger.Millisecond, s.Rules.Accept/ledger.Millisecond, s.Rules.Copy/ledger.Millisecond,
		s.Rules.Lease/ledger.Millisecond, s.Rules.Vote/ledger.Millisecond)
	for _, m := range s.Founders {
		fmt.Fprintf(&b, "member %d %s/%s*%d\n", m.ID, m.Site, m.Region, m.Weight)
	}
	state, err := ledger.New(s.Founders, s.Rules)
	if err != nil {
		return b.String() + err.Error()
	}
	for _, ev := range s.Events {
		fmt.Fprintf(&b, "\nevent %d round %d at %d by %s\n", ev.Place.Index, ev.Place.Round, ev.Place.Time, state.Site(ev.Place.Author))
		told(&b, state.Advance(ev.Place), nil)
		for _, raw := range ev.Txs {
			tx, err := ledger.Decode(raw)
			if err != nil {
				fmt.Fprintf(&b, "  %d bytes: %v\n", len(raw), err)
				continue
			}
			body, err := json.Marshal(tx.Body)
			if err != nil {
				body = []byte(err.Error())
			}
			fmt.Fprintf(&b, "  %s %d %s %s\n", tx.Body.Kind(), tx.Seq, tx.Account, body)
			out, err := state.Apply(s.Network, ev.Place, tx)
			told(&b, out, err)
		}
	}
	return b.String()
}

func told(b *strings.Builder, out []ledger.Effect, err error) {
	if err != nil {
		fmt.Fprintf(b, "    refused: %v\n", err)
	}
	for i := range out {
		e := &out[i]
		fmt.Fprintf(b, "    %s\n", strings.Join(strings.Fields(fmt.Sprint(e.Kind, " ", e.Machine, e.Image, e.Account, " ", e.Member, " ", e.Move.Phase, " to ", e.Move.To, " ", e.Move.Reason)), " "))
	}
}

// Shrink looks for a smaller script that fails too, by leaving out events and then
// transactions. It runs no more than tries of them.
func Shrink(s Script, tries int) (Script, error) {
	err := Replay(s)
	if err == nil {
		return s, nil
	}
	fails := func(c Script) bool {
		if tries--; tries < 0 {
			return false
		}
		e := Replay(c)
		if e == nil {
			return false
		}
		s, err = c, e
		return true
	}
	for size := max(len(s.Events)/2, 1); ; size /= 2 {
		for from := 0; from < len(s.Events); {
			c := s
			c.Events = append(append([]Event(nil), s.Events[:from]...), s.Events[min(from+size, len(s.Events)):]...)
			if !fails(c) {
				from += size
			}
		}
		if size == 1 {
			break
		}
	}
	for i := 0; i < len(s.Events); i++ {
		for k := 0; k < len(s.Events[i].Txs); {
			c := s
			c.Events = append([]Event(nil), s.Events...)
			txs := s.Events[i].Txs
			c.Events[i].Txs = append(append([][]byte(nil), txs[:k]...), txs[k+1:]...)
			if !fails(c) {
				k++
			}
		}
	}
	return s, err
}
