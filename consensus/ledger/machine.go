package ledger

import (
	"encoding/json"
	"slices"
	"strings"
)

// Define brings a machine into being; its author is the first owner.
type Define struct {
	Name   string          `json:"name"`
	Image  string          `json:"image"`
	Memory int64           `json:"memory"` // bytes, what a destination has to have free
	Spec   json.RawMessage `json:"spec"`
}

// Kind implements Body.
func (*Define) Kind() Kind { return KindDefine }

func (t *Define) apply(s *State, p Place) ([]Effect, error) {
	if err := checkName("machine", t.Name); err != nil {
		return nil, err
	}
	img := s.Image(t.Image)
	if img == nil {
		return nil, refuse("there is no image %s: add it with `dcnode image add`", t.Image)
	}
	if t.Memory <= 0 {
		return nil, refuse("machine %s: memory of %d bytes", t.Name, t.Memory)
	}
	i, found := slices.BinarySearchFunc(s.Machines, t.Name, func(m Machine, n string) int { return strings.Compare(m.Name, n) })
	if found {
		return nil, refuse("machine %s exists already (at %s): choose another name", t.Name, s.Site(s.Machines[i].Owner))
	}
	s.Machines = slices.Insert(s.Machines, i, Machine{
		Name: t.Name, Image: img.Name, Commit: img.Commit, Spec: t.Spec, Memory: t.Memory, Owner: p.Author, Epoch: 1,
		Handovers: []Handover{{Index: p.Index, Epoch: 1, Owner: p.Author, Why: KindDefine}},
	})
	return []Effect{{Kind: KindDefine, Machine: t.Name}}, nil
}

// Set records that the owner stopped its machine or started it again.
type Set struct {
	Name    string `json:"name"`
	Stopped bool   `json:"stopped"`
}

// Kind implements Body.
func (*Set) Kind() Kind { return KindSet }

func (t *Set) apply(s *State, p Place) ([]Effect, error) {
	m, err := s.owned(t.Name, p)
	if err != nil {
		return nil, err
	}
	if m.Move != nil {
		return nil, refuse("machine %s is moving (%s): wait for the end or cancel the move", m.Name, m.Move.Phase)
	}
	m.Stopped = t.Stopped
	return []Effect{{Kind: KindSet, Machine: t.Name}}, nil
}

// Delete ends a machine for good.
type Delete struct {
	Name string `json:"name"`
}

// Kind implements Body.
func (*Delete) Kind() Kind { return KindDelete }

func (t *Delete) apply(s *State, p Place) ([]Effect, error) {
	m, err := s.owned(t.Name, p)
	if err != nil {
		return nil, err
	}
	if m.Move != nil {
		return nil, refuse("machine %s is moving (%s): wait for the end or cancel the move", m.Name, m.Move.Phase)
	}
	s.Machines = slices.DeleteFunc(s.Machines, func(o Machine) bool { return o.Name == t.Name })
	return []Effect{{Kind: KindDelete, Machine: t.Name}}, nil
}

// owned is the machine of that name if p's author owns it.
func (s *State) owned(name string, p Place) (*Machine, error) {
	m := s.Machine(name)
	if m == nil {
		return nil, refuse("there is no machine %s", name)
	}
	if m.Owner != p.Author {
		return nil, refuse("machine %s belongs to %s: ask there", name, s.Site(m.Owner))
	}
	return m, nil
}
