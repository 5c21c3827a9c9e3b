package ledger

import (
	"slices"
	"strings"
)

// Publish gives an image a name. A name belongs to the first who took it.
type Publish struct {
	Name   string `json:"name"`
	Commit string `json:"commit"`
	Size   int64  `json:"size"`
	Stored int64  `json:"stored"`
}

// Kind implements Body.
func (*Publish) Kind() Kind { return KindPublish }

func (t *Publish) apply(s *State, p Place) ([]Effect, error) {
	if err := checkName("image", t.Name); err != nil {
		return nil, err
	}
	if t.Commit == "" || t.Size < 0 || t.Stored < 0 {
		return nil, refuse("image %s: commit or sizes are missing", t.Name)
	}
	i, found := slices.BinarySearchFunc(s.Images, t.Name, func(m Image, n string) int { return strings.Compare(m.Name, n) })
	if found {
		have := s.Images[i]
		return nil, refuse("image %s exists already (published by %s): choose another name", t.Name, s.Site(have.Publisher))
	}
	s.Images = slices.Insert(s.Images, i, Image{
		Name: t.Name, Commit: t.Commit, Size: t.Size, Stored: t.Stored,
		Publisher: p.Author, Holders: []MemberID{p.Author},
	})
	return []Effect{{Kind: KindPublish, Image: t.Name}}, nil
}

// Withdraw takes an image's name back.
type Withdraw struct {
	Name string `json:"name"`
}

// Kind implements Body.
func (*Withdraw) Kind() Kind { return KindWithdraw }

func (t *Withdraw) apply(s *State, p Place) ([]Effect, error) {
	img := s.Image(t.Name)
	if img == nil {
		return nil, refuse("there is no image %s", t.Name)
	}
	if img.Publisher != p.Author {
		return nil, refuse("image %s was published by %s: only it can withdraw it", t.Name, s.Site(img.Publisher))
	}
	for _, m := range s.Machines {
		if m.Image == t.Name {
			return nil, refuse("image %s is in use by machine %s", t.Name, m.Name)
		}
	}
	s.Images = slices.DeleteFunc(s.Images, func(i Image) bool { return i.Name == t.Name })
	return []Effect{{Kind: KindWithdraw, Image: t.Name}}, nil
}

// Hold says that its author holds, or no longer holds, all blocks of an image.
type Hold struct {
	Name string `json:"name"`
	Held bool   `json:"held"`
}

// Kind implements Body.
func (*Hold) Kind() Kind { return KindHold }

func (t *Hold) apply(s *State, p Place) ([]Effect, error) {
	img := s.Image(t.Name)
	if img == nil {
		return nil, refuse("there is no image %s", t.Name)
	}
	i, found := slices.BinarySearch(img.Holders, p.Author)
	switch {
	case t.Held && !found:
		img.Holders = slices.Insert(img.Holders, i, p.Author)
	case !t.Held && found:
		img.Holders = slices.Delete(img.Holders, i, i+1)
	}
	return nil, nil
}

// MaxName is the longest name of an image or a machine, in bytes.
const MaxName = 63

// checkName allows what is safe as a file name and a host name.
func checkName(what, name string) error {
	if name == "" || len(name) > MaxName {
		return refuse("%s name %q: it needs 1 to %d characters", what, name, MaxName)
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || r != '-' && r != '_' && r != '.') {
			return refuse("%s name %q: use letters, digits, and inside it - _ .", what, name)
		}
	}
	return nil
}

// CheckName says whether a name can be an image's or a machine's.
func CheckName(what, name string) error { return checkName(what, name) }
