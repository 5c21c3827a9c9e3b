package journal

import (
	"encoding/binary"
	"errors"
	"math"
)

// Entry is one transaction of the order and what came of it, or something that fell
// due, or a gap.
type Entry struct {
	Index  uint64   // place of its event in the order
	N      int      // which transaction of that event; -1: nothing was said, a deadline passed
	Round  uint64   // that its event was received in
	Time   int64    // consensus time, ns since 1970
	Author uint64   // member; 0: none
	Site   string   // of the author, as it was called then
	Event  [32]byte // hash
	Kind   string   // of the transaction; KindGap

	// What it is about, if anything.
	Machine, Image, Member, Account string

	Text    string // one plain sentence
	Refused string // why it had no effect; empty: it held
	Raw     []byte // the transaction as it was said

	// Until is for a gap only: the last index of which nothing is known.
	Until uint64
}

// KindGap is the Kind of an entry that stands for those from its Index to its Until,
// which are lacking. Its Text says why.
const KindGap = "gap"

// last is the highest index that it speaks of.
func (e *Entry) last() uint64 { return max(e.Index, e.Until) }

// An entry's encoding, numbers as varints:
//
//	flags 1 | index | until | n, zigzag | round | time 8 big-endian | author | event 32
//	nine strings, each after its length: kind, machine, image, member, account, site,
//	text, refused, raw
//
// What a filter asks for comes before what is long.
const (
	flagMore = 1 // another entry of the same index follows

	fixedSize  = 1 + 5*binary.MaxVarintLen64 + 8 + 32
	maxStrings = 9
)

// Places of the strings.
const (
	strKind = iota
	strMachine
	strImage
	strMember
	strAccount
	strSite
	strText
	strRefused
	strRaw
)

// room is how many bytes an entry's record takes at most.
func (e *Entry) room() int {
	return recordHead + fixedSize + maxStrings*binary.MaxVarintLen32 + len(e.Kind) + len(e.Machine) + len(e.Image) +
		len(e.Member) + len(e.Account) + len(e.Site) + len(e.Text) + len(e.Refused) + len(e.Raw)
}

func (e *Entry) append(b []byte, more bool) []byte {
	var flags byte
	if more {
		flags = flagMore
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, e.Index)
	b = binary.AppendUvarint(b, e.Until)
	b = binary.AppendVarint(b, int64(e.N))
	b = binary.AppendUvarint(b, e.Round)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time))
	b = binary.AppendUvarint(b, e.Author)
	b = append(b, e.Event[:]...)
	for _, s := range [...]string{e.Kind, e.Machine, e.Image, e.Member, e.Account, e.Site, e.Text, e.Refused} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return append(binary.AppendUvarint(b, uint64(len(e.Raw))), e.Raw...)
}

// view is an entry that still lies in the bytes it was read from.
type view struct {
	body         []byte
	at           int // where the body is in the data that walk was given
	more         bool
	index, until uint64
	n            int
	round        uint64
	time         int64
	author       uint64
	event        []byte
	str          [maxStrings]span
}

// span is where a string is in the body.
type span struct{ from, to int }

func (v *view) bytes(i int) []byte { return v.body[v.str[i].from:v.str[i].to] }

// errEntry is of a record whose checksum fits and whose content does not: written by
// something else.
var errEntry = errors.New("a record is no entry")

// parse reads an encoding, of which it keeps a reference.
func (v *view) parse(b []byte) error {
	if len(b) == 0 || b[0]&^flagMore != 0 {
		return errEntry
	}
	v.body, v.more = b, b[0]&flagMore != 0
	at, ok := 1, true
	number := func() uint64 {
		n, size := binary.Uvarint(b[at:])
		if size <= 0 {
			ok = false
			return 0
		}
		at += size
		return n
	}
	v.index, v.until = number(), number()
	n := number()
	signed := int64(n>>1) ^ -int64(n&1)
	v.round = number()
	if !ok || signed < -1 || signed > math.MaxInt32 || len(b)-at < 8 {
		return errEntry
	}
	v.n = int(signed)
	v.time = int64(binary.BigEndian.Uint64(b[at:]))
	at += 8
	v.author = number()
	if !ok || len(b)-at < 32 {
		return errEntry
	}
	v.event = b[at : at+32]
	at += 32
	for i := range v.str {
		size := number()
		if !ok || size > uint64(len(b)-at) {
			return errEntry
		}
		v.str[i] = span{at, at + int(size)}
		at += int(size)
	}
	if at != len(b) {
		return errEntry
	}
	return nil
}

// gap reports whether it stands for what is lacking.
func (v *view) gap() bool { return string(v.bytes(strKind)) == KindGap }

// last is the highest index that it speaks of.
func (v *view) last() uint64 { return max(v.index, v.until) }

// entry is a copy.
func (v *view) entry() Entry {
	all := string(v.body[:v.str[strRaw].from]) // one allocation for all strings
	s := func(i int) string { return all[v.str[i].from:v.str[i].to] }
	e := Entry{
		Index: v.index, Until: v.until, N: v.n, Round: v.round, Time: v.time, Author: v.author, Event: [32]byte(v.event),
		Kind: s(strKind), Machine: s(strMachine), Image: s(strImage), Member: s(strMember), Account: s(strAccount),
		Site: s(strSite), Text: s(strText), Refused: s(strRefused),
	}
	if raw := v.bytes(strRaw); len(raw) > 0 {
		e.Raw = append([]byte(nil), raw...)
	}
	return e
}

// Filter says which entries are wanted. A field that is empty or zero asks nothing,
// the others must all fit. Gaps are given whatever it says: what is lacking might
// have fitted.
type Filter struct {
	Kind, Machine, Image, Member, Account string
	Site                                  string // of the author
	Author                                uint64
	Refused                               bool // only those that had no effect
}

func (f *Filter) fits(v *view) bool {
	if *f == (Filter{}) {
		return true
	}
	is := func(want string, i int) bool { return want == "" || want == string(v.bytes(i)) }
	return (f.Author == 0 || f.Author == v.author) &&
		is(f.Machine, strMachine) && is(f.Kind, strKind) && is(f.Image, strImage) && is(f.Member, strMember) &&
		is(f.Account, strAccount) && is(f.Site, strSite) && (!f.Refused || len(v.bytes(strRefused)) > 0) || v.gap()
}
