package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/journal"
)

// kindUnknown is the journal's kind of a transaction that nobody understands.
const kindUnknown = "unknown"

// absentFile has the index from which on this member does not know the order, until it
// knows to where.
const absentFile = "absent"

// scribe writes down, for people, what came of each transaction. It belongs to the
// ordering loop. Without a journal it does nothing.
type scribe struct {
	journal *journal.Journal
	entries []journal.Entry // of the event that is being applied
}

// openScribe opens the journal in a data directory.
func openScribe(dir string, network [32]byte) (scribe, error) {
	j, err := journal.Open(journal.Config{Dir: dir, Network: network})
	return scribe{journal: j}, err
}

// old says whether the journal has the event already: the log is read again after a restart.
func (r *scribe) old(index uint64) bool {
	if r.journal == nil {
		return true
	}
	last, any := r.journal.Last()
	return any && index <= last
}

func (r *scribe) entry(s *ledger.State, p ledger.Place, n int) *journal.Entry {
	r.entries = append(r.entries, journal.Entry{
		Index: p.Index, N: n, Round: p.Round, Time: int64(p.Time), Author: uint64(p.Author), Site: s.Site(p.Author), Event: p.Event,
	})
	return &r.entries[len(r.entries)-1]
}

// fell writes down what fell due when time advanced to an event.
func (r *scribe) fell(s *ledger.State, p ledger.Place, effects []ledger.Effect) {
	if r.old(p.Index) {
		return
	}
	for i := range effects {
		e := r.entry(s, p, -1)
		e.Kind, e.Machine, e.Image, e.Account = string(effects[i].Kind), effects[i].Machine, effects[i].Image, effects[i].Account
		if m := effects[i].Member; m != 0 {
			e.Member = s.Site(m)
		}
		e.Text = ledger.SayEffect(s, &effects[i])
		e.Author, e.Site = 0, "" // nobody has said it
	}
}

// said writes down a transaction.
func (r *scribe) said(s *ledger.State, p ledger.Place, n int, raw []byte, tx ledger.Tx, effects []ledger.Effect, err error) {
	if r.old(p.Index) {
		return
	}
	e := r.entry(s, p, n)
	e.Kind, e.Raw, e.Account = string(tx.Body.Kind()), raw, tx.Account
	about(s, tx.Body, effects, e)
	e.Text = ledger.Say(s, p, tx, effects, err)
	if err != nil {
		e.Refused = ledger.Printable(err.Error())
	}
}

// unknown writes down what is no transaction.
func (r *scribe) unknown(s *ledger.State, p ledger.Place, n int, raw []byte, err error) {
	if r.old(p.Index) {
		return
	}
	e := r.entry(s, p, n)
	e.Kind, e.Raw, e.Refused = kindUnknown, raw, ledger.Printable(err.Error())
	e.Text = fmt.Sprintf("%s says what no member understands: %s", e.Site, e.Refused)
}

// flush hands an event's entries to the journal.
func (r *scribe) flush() {
	if len(r.entries) > 0 {
		_ = r.journal.Append(r.entries) // it is closed: the node ends
		r.entries = r.entries[:0]
	}
}

// about fills in what a transaction is about.
func about(s *ledger.State, body ledger.Body, effects []ledger.Effect, e *journal.Entry) {
	switch t := body.(type) {
	case *ledger.Propose:
		e.Member = t.Site
		if t.Member != 0 {
			e.Member = s.Site(t.Member)
		}
	case *ledger.SetAccount:
		e.Account = t.Name
	case *ledger.SetQuota:
		e.Account = t.Account
	case *ledger.Publish:
		e.Image = t.Name
	case *ledger.Withdraw:
		e.Image = t.Name
	case *ledger.Hold:
		e.Image = t.Name
	case *ledger.Define:
		e.Machine, e.Image = t.Name, t.Image
	case *ledger.Set:
		e.Machine = t.Name
	case *ledger.Delete:
		e.Machine = t.Name
	case *ledger.SetPolicy:
		e.Machine = t.Machine
		if t.Account != "" {
			e.Account = t.Account
		}
	default:
		e.Machine = ledger.MachineOf(body)
	}
	for i := range effects { // what a vote decides
		if m := effects[i].Member; m != 0 && e.Member == "" && e.Machine == "" {
			e.Member = s.Site(m)
		}
	}
}

// leaves notes from which index on this member does not follow the order, for it takes
// over a checkpoint of the others.
func leaves(dir string, from uint64) error {
	return writeFile(filepath.Join(dir, absentFile), strconv.AppendUint(nil, from, 10), 0o600)
}

// gap tells the journal of what it lacks before the state that the log begins with.
func (r *scribe) gap(dir string, next uint64) {
	if r.journal == nil || next == 0 {
		return
	}
	last, any := r.journal.Last()
	path := filepath.Join(dir, absentFile)
	text, err := os.ReadFile(path)
	switch from, perr := strconv.ParseUint(string(text), 10, 64); {
	case err == nil && perr == nil && from < next && (!any || last < next):
		r.journal.Gap(max(from, last), next-1, "this member was away for long and took over a checkpoint of the others")
	case !any:
		r.journal.Gap(0, next-1, "the journal began later")
	}
	_ = os.Remove(path)
}

// close ends the log and the journal.
func (r *replica) close() error {
	err := r.loop.Close()
	if r.scribe.journal != nil {
		err = errors.Join(err, r.scribe.journal.Close())
	}
	return err
}
