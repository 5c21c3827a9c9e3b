package ledger

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of images.
const (
	maxTags   = 64  // versions of one image
	maxCommit = 100 // bytes of a CID as text
)

// Ref is an image's name with a tag, as it stands in Machine.Image and Effect.Image.
func Ref(name, tag string) string {
	if tag == "" {
		tag = DefaultTag
	}
	return name + ":" + tag
}

// VersionOf is the version of an image that a machine was made from, whatever its tag
// is by now. Read only.
func (s *State) VersionOf(m *Machine) *Version {
	name, _ := SplitRef(m.Image)
	if img := s.Image(name); img != nil {
		return img.commit(m.Commit)
	}
	return nil
}

// Holders are the members that say that they have all blocks of what a machine was
// made from, by ID. Read only.
func (s *State) Holders(m *Machine) []MemberID {
	if v := s.VersionOf(m); v != nil {
		return v.Holders
	}
	return nil
}

// tagged is the version with that tag, or nil.
func (i *Image) tagged(tag string) *Version {
	for k := range i.Tags {
		if tag != "" && i.Tags[k].Tag == tag {
			return &i.Tags[k]
		}
	}
	return nil
}

// commit is one of the versions with that commit, or nil.
func (i *Image) commit(c string) *Version {
	for k := range i.Tags {
		if i.Tags[k].Commit == c {
			return &i.Tags[k]
		}
	}
	return nil
}

// edit is a copy of an image in which versions can be changed.
func (i *Image) edit() *Image {
	c := *i
	c.Tags = slices.Clone(i.Tags)
	return &c
}

// alike changes all versions with one commit of an image that is the caller's own.
func (i *Image) alike(commit string, change func(*Version)) {
	for k := range i.Tags {
		if i.Tags[k].Commit == commit {
			change(&i.Tags[k])
		}
	}
}

// settle drops versions without a tag that no machine needs, or that another tag of
// the same commit stands for, and sorts the others.
func (i *Image) settle() {
	i.Tags = slices.DeleteFunc(i.Tags, func(v Version) bool {
		return v.Tag == "" && (v.Machines == 0 || slices.ContainsFunc(i.Tags, func(o Version) bool { return o.Tag != "" && o.Commit == v.Commit }))
	})
	slices.SortFunc(i.Tags, func(a, b Version) int {
		return cmp.Or(strings.Compare(a.Tag, b.Tag), strings.Compare(a.Commit, b.Commit))
	})
}

// putImage replaces an image by a settled one, or drops it when nothing of it is left.
func (s *State) putImage(i *Image) {
	if i.settle(); len(i.Tags) > 0 {
		s.images = s.images.Set(i.Name, i)
		return
	}
	s.images = s.images.Delete(i.Name)
	s.use(i.Account, Quota{Images: 1}, -1)
}

func (t *Publish) apply(s *State, a *act) ([]Effect, error) {
	account, tag := cmp.Or(t.Account, a.who()), cmp.Or(t.Tag, DefaultTag)
	if err := t.check(tag); err != nil {
		return nil, err
	}
	if err := a.here(t.Site); err != nil {
		return nil, err
	}
	if !a.speaks(account) {
		return nil, refuse("image %s is to belong to account %.70q: that has to sign it, not %s", t.Name, account, a.who())
	}
	v := Version{Tag: tag, Commit: t.Commit, Size: t.Size, Stored: t.Stored, Publisher: a.Author, Holders: []MemberID{a.Author}}
	effect := []Effect{{Kind: KindPublish, Image: Ref(t.Name, tag), Account: account, Member: a.Author}}
	have := s.Image(t.Name)
	if have == nil {
		if err := s.room(account, Quota{Images: 1}); err != nil {
			return nil, err
		}
		s.use(account, Quota{Images: 1}, 1)
		s.putImage(&Image{Name: t.Name, Account: account, Tags: []Version{v}})
		return effect, nil
	}
	if have.Account != account {
		return nil, refuse("image %s exists already and belongs to %s: choose another name", t.Name, have.Account)
	}
	next := have.edit()
	was := next.tagged(tag)
	if same := next.commit(t.Commit); same != nil {
		if was != nil && was.Commit == t.Commit {
			return nil, refuse("image %s is published with this commit already", Ref(t.Name, tag))
		}
		if same.Size != t.Size || same.Stored != t.Stored {
			return nil, refuse("image %s: the sizes are not those that its commit has under %s", Ref(t.Name, tag), Ref(t.Name, same.Tag))
		}
		v.Holders, v.Machines = with(same.Holders, a.Author), same.Machines
	}
	if was != nil {
		was.Tag = "" // settle drops it unless machines need it
	}
	next.Tags = append(next.Tags, v)
	next.alike(t.Commit, func(o *Version) { o.Holders = v.Holders })
	if next.settle(); len(next.Tags) > maxTags {
		return nil, refuse("image %s has %d tags, the most that one may have: withdraw one", t.Name, len(have.Tags))
	}
	s.putImage(next)
	return effect, nil
}

func (t *Publish) check(tag string) error {
	if err := CheckName("image", t.Name); err != nil {
		return err
	}
	if err := CheckName("tag", tag); err != nil {
		return err
	}
	if t.Commit == "" || len(t.Commit) > maxCommit || strings.ContainsFunc(t.Commit, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return refuse("image %s: the commit is not a CID", Ref(t.Name, tag))
	}
	if min(t.Size, t.Stored) < 0 || max(t.Size, t.Stored) > maxSize {
		return refuse("image %s: sizes of %d and %d bytes", Ref(t.Name, tag), t.Size, t.Stored)
	}
	return nil
}

func (t *Withdraw) apply(s *State, a *act) ([]Effect, error) {
	tag := cmp.Or(t.Tag, DefaultTag)
	img := s.Image(t.Name)
	if img == nil || img.tagged(tag) == nil {
		return nil, refuse("there is no image %.140q", Ref(t.Name, tag))
	}
	if !a.speaks(img.Account) {
		return nil, refuse("image %s belongs to %s: only it can withdraw it", t.Name, img.Account)
	}
	next := img.edit()
	v := next.tagged(tag)
	v.Tag = ""
	if next.settle(); next.lacksTag(img.tagged(tag).Commit) {
		return nil, refuse("image %s is in use by machine %s", Ref(t.Name, tag), s.madeOf(img.Name, img.tagged(tag).Commit))
	}
	s.putImage(next)
	return []Effect{{Kind: KindWithdraw, Image: Ref(t.Name, tag), Account: img.Account}}, nil
}

// lacksTag says that machines need a commit that no tag is left of.
func (i *Image) lacksTag(commit string) bool {
	return slices.ContainsFunc(i.Tags, func(v Version) bool { return v.Tag == "" && v.Commit == commit })
}

// madeOf is the first of the machines that were made from a version.
func (s *State) madeOf(name, commit string) string {
	for m := range s.group(s.index.made, entry{key: name + "@" + commit}) {
		return m.Name
	}
	return ""
}

func (t *Hold) apply(s *State, a *act) ([]Effect, error) {
	img, ref := s.Image(t.Name), Ref(t.Name, t.Tag)
	if t.Commit != "" {
		ref = t.Name + "@" + t.Commit
	}
	var v *Version
	switch {
	case t.Commit != "" && t.Tag != "":
		return nil, refuse("image %.140q: give a tag or a commit, not both", ref)
	case img != nil && t.Commit != "":
		v = img.commit(t.Commit)
	case img != nil:
		v = img.tagged(cmp.Or(t.Tag, DefaultTag))
	}
	if v == nil {
		return nil, refuse("there is no image %.200q", ref)
	}
	holders := with(v.Holders, a.Author)
	if !t.Held {
		holders = without(v.Holders, a.Author)
	}
	if len(holders) != len(v.Holders) {
		next := img.edit()
		next.alike(v.Commit, func(o *Version) { o.Holders = holders })
		s.putImage(next)
	}
	return nil, nil
}

// with and without are lists of members, ascending, with one more or less.
func with(ids []MemberID, id MemberID) []MemberID {
	i, found := slices.BinarySearch(ids, id)
	if found {
		return ids
	}
	return slices.Insert(slices.Clone(ids), i, id)
}

func without(ids []MemberID, id MemberID) []MemberID {
	i, found := slices.BinarySearch(ids, id)
	if !found {
		return ids
	}
	return slices.Delete(slices.Clone(ids), i, i+1)
}

// made counts a machine that was made from a version, sign 1, or is no more, -1.
func (s *State) made(m *Machine, sign int64) {
	name, _ := SplitRef(m.Image)
	next := s.Image(name).edit()
	next.alike(m.Commit, func(v *Version) { v.Machines += sign })
	s.putImage(next)
}

// dropHolder takes a member out of the holders of all images.
func (s *State) dropHolder(id MemberID) {
	all := s.images
	for _, img := range all.All() {
		if !slices.ContainsFunc(img.Tags, func(v Version) bool { return slices.Contains(v.Holders, id) }) {
			continue
		}
		next := img.edit()
		for k := range next.Tags {
			next.Tags[k].Holders = without(next.Tags[k].Holders, id)
		}
		s.putImage(next)
	}
}

// MaxName is the longest name of a site, region, account, image, tag or machine, in
// bytes.
const MaxName = 63

// CheckName says whether a name can be that of a site, region, account, image, tag or
// machine: what is safe as a file name and a host name. what is the word for it in the
// error, which is a *RefusedError.
func CheckName(what, name string) error {
	if name == "" || len(name) > MaxName {
		return refuse("%s name %.70q: it needs 1 to %d characters", what, name, MaxName)
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || r != '-' && r != '_' && r != '.') {
			return refuse("%s name %.70q: use letters, digits, and inside it - _ .", what, name)
		}
	}
	return nil
}

// checkText says whether free text of a transaction is too long or no text.
func checkText(what, text string) error {
	if len(text) > maxReason || !utf8.ValidString(text) {
		return refuse("the %s: give at most %d bytes of text in UTF-8", what, maxReason)
	}
	return nil
}
