package api

import (
	"github.com/ipfs/go-cid"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// Ledger is what the members have agreed on, for people and scripts.
type Ledger struct {
	Root      string             `json:"root"` // CID of the state
	Now       ledger.Time        `json:"now"`  // consensus time of the last event
	Next      uint64             `json:"next"` // index of the next event
	Rules     ledger.Rules       `json:"rules"`
	Roster    uint64             `json:"roster_version"` // how often the members, weights or keys have changed
	Members   []*ledger.Member   `json:"members"`        // by ID
	Proposals []*ledger.Proposal `json:"proposals"`      // that wait for votes, by ID
	Accounts  []*ledger.Account  `json:"accounts"`       // by name
	Images    []*ledger.Image    `json:"images"`         // by name
	Machines  []*ledger.Machine  `json:"machines"`       // by name
}

// Export is a state as people see it, with its root.
func Export(s *ledger.State, root cid.Cid) *Ledger {
	return &Ledger{
		Root: root.String(), Now: s.Now(), Next: s.Next(), Rules: s.Rules(), Roster: s.RosterVersion(),
		Members: some(s.Members()), Proposals: some(s.Proposals()), Accounts: some(s.Accounts()),
		Images: some(s.Images()), Machines: some(s.SortedMachines()),
	}
}

// some is a list that is [] in JSON when it is empty.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Machine is the machine of that name, or nil.
func (l *Ledger) Machine(name string) *ledger.Machine {
	for _, m := range l.Machines {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Site is what people call a member; empty: it is none.
func (l *Ledger) Site(id ledger.MemberID) string {
	for _, m := range l.Members {
		if m.ID == id {
			return m.Site
		}
	}
	return ""
}

// Member is the number of the member at a site; 0: there is none.
func (l *Ledger) Member(site string) ledger.MemberID {
	for _, m := range l.Members {
		if m.Site == site {
			return m.ID
		}
	}
	return 0
}
