package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// hostile makes transactions of which every field may be anything that a Byzantine
// member could put into a valid event.
type hostile struct {
	*rand.Rand
	keys  []ed25519.PrivateKey
	names []string
	index uint64
}

var hostileKinds = []Kind{
	KindPropose, KindVote, KindRotate, KindAccount, KindQuota, KindPublish, KindWithdraw, KindHold, KindDefine, KindSet,
	KindDelete, KindPolicy, KindApprove, KindIntent, KindIntent, KindBid, KindBid, KindBid, KindBid, KindAccept, KindAccept,
	KindBid, KindBid, KindIntent, KindAccept, KindBeat, KindRelease, KindRelease, KindConfirm, KindDecline, KindAbort, KindReclaim, KindReport, KindRoot, KindTick,
}

func newHostile(seed uint64) *hostile {
	h := &hostile{Rand: rand.New(rand.NewPCG(seed, 7))}
	for i := range 12 {
		b := sha256.Sum256([]byte{byte(i), 'k'})
		h.keys = append(h.keys, ed25519.NewKeyFromSeed(b[:]))
	}
	h.names = []string{"", "a", "b", "c", "d", "web", "db", "acme", "img", "latest", "img:latest", "eu", "us", "\xff\xfe", "é",
		strings.Repeat("x", 63), strings.Repeat("é", 1000), strings.Repeat("z", 40<<10), "\x00", "..", "a/b"}
	return h
}

func (h *hostile) name() string {
	if h.IntN(10) > 0 {
		return h.names[1:13][h.IntN(12)]
	}
	return h.names[h.IntN(len(h.names))]
}

func (h *hostile) number() uint64 {
	switch h.IntN(12) {
	case 0:
		return []uint64{math.MaxUint64, math.MaxInt64, 1 << 62, 1 << 50, 1 << 32, 1 << 31, 1<<63 + 1}[h.IntN(7)]
	case 1, 2:
		return h.index - uint64(h.IntN(40))
	case 3:
		return uint64(1+h.IntN(100)) << 20
	}
	return uint64(h.IntN(7))
}

// fill puts something into every field.
func (h *hostile) fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		h.fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			h.fill(v.Field(i))
		}
	case reflect.String:
		v.SetString(h.name())
	case reflect.Bool:
		v.SetBool(h.IntN(2) == 0)
	case reflect.Uint64:
		v.SetUint(h.number())
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(h.number()))
		if h.IntN(8) == 0 {
			v.SetInt(-v.Int())
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(h.key().Public().(ed25519.PublicKey)[:[]int{32, 32, 32, 0, 31}[h.IntN(5)]])
			return
		}
		n := []int{0, 0, 0, 0, 1, 1, 2, 3}[h.IntN(8)]
		if h.IntN(60) == 0 {
			n = 700
		}
		list := reflect.MakeSlice(v.Type(), n, n)
		for i := range n {
			h.fill(list.Index(i))
		}
		v.Set(list)
		if s, ok := v.Interface().([]string); ok && h.IntN(4) > 0 {
			slices.Sort(s)
			v.Set(reflect.ValueOf(slices.Compact(s)))
		}
	}
}

func (h *hostile) key() ed25519.PrivateKey { return h.keys[h.IntN(len(h.keys))] }

// body is one that is wild, or near to what would pass.
func (h *hostile) body(s *State, author *Member, network [32]byte) Body {
	b := newBody(hostileKinds[h.IntN(len(hostileKinds))])
	h.fill(reflect.ValueOf(b))
	if h.IntN(6) == 0 {
		return b
	}
	var m *Machine
	if all := s.SortedMachines(); len(all) > 0 {
		m = all[h.IntN(len(all))]
		for _, name := range []string{"Machine", "Name"} {
			if f := reflect.ValueOf(b).Elem().FieldByName(name); f.IsValid() && f.Kind() == reflect.String && b.Kind() != KindDefine && b.Kind() != KindPublish && h.IntN(10) > 0 {
				f.SetString(m.Name)
			}
		}
		if f := reflect.ValueOf(b).Elem().FieldByName("Epoch"); f.IsValid() {
			f.SetUint(m.Epoch)
		}
		if f := reflect.ValueOf(b).Elem().FieldByName("Move"); f.IsValid() && m.Move != nil {
			f.SetUint(m.Move.ID)
		}
	}
	switch t := b.(type) {
	case *Propose:
		t.Change, t.Proof, t.Reason, t.Force = []Change{Join, Leave, Update}[h.IntN(3)], nil, "", h.IntN(2) == 0
		if t.Change != Join {
			t.Site, t.Key, t.Member = "", nil, s.members[h.IntN(len(s.members))].ID
			t.Force = t.Force && t.Change == Leave
			if t.Change == Leave {
				t.Region, t.Weight = "", 0
			}
			break
		}
		k := h.key()
		t.Member, t.Force, t.Key = 0, false, []byte(k.Public().(ed25519.PublicKey))
		t.Weight = 1 + uint64(h.IntN(3))
		t.Proof = ed25519.Sign(k, CardBytes(network, t.Site, t.Region, t.Weight, t.Key, s.LastNumber(t.Key)))
	case *CastVote:
		if len(s.votes) > 0 {
			p := s.votes[h.IntN(len(s.votes))]
			t.Proposal, t.Digest, t.Yes = p.ID, p.Content, h.IntN(4) > 0
		}
	case *Rotate:
		k := h.key()
		t.Key = []byte(k.Public().(ed25519.PublicKey))
		t.Proof = ed25519.Sign(k, RotateBytes(network, author.ID, t.Key))
		if len(author.Old) > 0 {
			t.Key, t.Proof = nil, nil
		}
	case *SetAccount:
		slices.SortFunc(t.Keys, bytes.Compare)
		t.Threshold, t.Site = 1, author.Site
	case *Publish:
		t.Name, t.Tag, t.Commit, t.Size, t.Stored, t.Account, t.Site = "img", "", "bafy"+t.Tag[:min(len(t.Tag), 2)], 1, 1, "", author.Site
	case *Define:
		t.Image, t.Memory, t.Account, t.Site = "img", 1<<20, "", author.Site
		h.tame(&t.Policy)
	case *SetPolicy:
		if h.IntN(3) > 0 {
			t.Account = ""
		} else {
			t.Machine = ""
		}
		h.tame(&t.Policy)
	case *Approve:
		t.Until, t.To, t.Account = s.now+Hour, 0, ""
	case *Intent:
		if t.Only = 0; h.IntN(4) > 0 {
			t.Limits = Limits{}
		}
		if h.IntN(3) > 0 {
			t.Needs = Needs{Memory: 1 << 20, MemoryBytes: 1 << 20}
		}
	case *Bid:
		t.Reason, t.Expires, t.FreeMemory, t.FreeDisk, t.FreeVCPUs = "no", s.now+Second, 1<<40, 1<<40, 0
		t.Able = h.IntN(5) > 0
		if h.IntN(2) > 0 {
			*t = Bid{Machine: t.Machine, Move: t.Move, Able: true, Expires: t.Expires, FreeMemory: maxSize, FreeDisk: maxSize, Bandwidth: 1 << 20, RTT: int64(h.IntN(1e6)), Driver: "a"}
		}
	case *Release:
		if m != nil && m.Move != nil {
			t.To, t.Epoch, t.After = m.Move.To, m.Epoch+1, 1
		}
	case *Set:
		t.Stopped = h.IntN(6) == 0
	case *Report:
		if m != nil && m.Last != nil {
			t.Move = m.Last.ID
			t.Truth.Pause = int64(h.IntN(1000))
		}
	case *Root:
		t.Index = h.index - 1
	}
	return b
}

// whose is often the member whose word that would be; 0: anybody's.
func (h *hostile) whose(s *State, b Body) MemberID {
	name := reflect.ValueOf(b).Elem().FieldByName("Machine")
	if set, ok := b.(*Set); ok {
		name = reflect.ValueOf(set.Name)
	}
	if !name.IsValid() || h.IntN(8) == 0 {
		return 0
	}
	m := s.Machine(name.String())
	if m == nil {
		return 0
	}
	who := m.Owner
	switch b.(type) {
	case *Approve, *SetPolicy:
		if owner := s.BySite(m.Account); owner != nil {
			who = owner.ID
		}
	case *Bid:
		who = 0
	case *Accept:
		if m.Move != nil {
			who = m.Move.To
		}
	case *Reclaim:
		if m.Move != nil {
			who = m.Move.From
		}
	case *Report:
		if m.Last != nil {
			who = m.Last.From
		}
	}
	if s.member(who) == nil {
		return 0
	}
	return who
}

// tame leaves of a policy what may pass.
func (h *hostile) tame(p *Policy) {
	if h.IntN(3) > 0 {
		*p = Policy{Apart: p.Apart, Movers: p.Movers, NotRegions: p.NotRegions}
	}
	if h.IntN(2) > 0 {
		*p = Policy{}
	}
}

// TestNothingThatIsOrderedStopsTheMembers plays what Byzantine members may order: no
// transaction makes Apply panic, or a state that cannot be encoded; and a member that
// was loaded from a snapshot goes on exactly as those that were not.
func TestNothingThatIsOrderedStopsTheMembers(t *testing.T) {
	for seed := range hostileWorlds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { playHostile(t, seed, hostileSteps) })
	}
}

const (
	hostileWorlds = uint64(2)
	hostileSteps  = 4000
)

func playHostile(t *testing.T, seed uint64, steps int) {
	h := newHostile(seed)
	network := [32]byte{1}
	var founders []Member
	for i, site := range []string{"a", "b", "c", "d"} {
		founders = append(founders, Member{ID: MemberID(i + 1), Site: site, Region: []string{"eu", "us"}[i%2], Weight: 1, Key: []byte(h.keys[i].Public().(ed25519.PublicKey))})
	}
	s, err := New(founders, Rules{})
	if err != nil {
		t.Fatal(err)
	}
	loaded := s.Clone()
	passed := map[Kind]int{}
	p := Place{Time: 1_700_000_000 * Second}
	for step := range steps {
		h.index++
		p.Index, p.Time = h.index, p.Time+Time(h.IntN(int(100*Millisecond)))
		if h.IntN(30) == 0 {
			p.Time += Time(h.IntN(int(20 * Second)))
		}
		p.Round += uint64(h.IntN(2))
		p.Event = sha256.Sum256(fmt.Append(nil, step))
		author := s.members[h.IntN(len(s.members))]
		p.Author = author.ID
		tx := Tx{Seq: uint64(step) + 1, Body: h.body(s, author, network)}
		if who := h.whose(s, tx.Body); who != 0 {
			p.Author = who
		}
		if h.IntN(50) == 0 {
			tx.Seq = h.number()
		}
		if _, may := signable(tx.Body); may && (h.IntN(5) == 0 || tx.Body.Kind() == KindAccount) {
			tx.Account = "acme"
			if set, ok := tx.Body.(*SetAccount); ok {
				set.Name, set.Keys, set.Threshold = "acme", nil, 2
				for _, k := range h.keys[6:8] {
					set.Keys = append(set.Keys, k.Public().(ed25519.PublicKey))
				}
				slices.SortFunc(set.Keys, bytes.Compare)
			}
			_ = Sign(network, &tx, h.keys[6])
			_ = Sign(network, &tx, h.keys[7])
		}
		raw, err := Encode(tx)
		effects := s.Advance(p)
		other := loaded.Advance(p)
		if err == nil {
			if tx, err = Decode(raw); err != nil {
				t.Fatalf("step %d: %s is encoded and not decoded: %v", step, tx.Body.Kind(), err)
			}
			out, err := s.Apply(network, p, tx)
			again, err2 := loaded.Apply(network, p, tx)
			if fmt.Sprint(err) != fmt.Sprint(err2) || len(out) != len(again) {
				t.Fatalf("step %d: %s: a loaded state says %v, the other %v", step, tx.Body.Kind(), err2, err)
			}
			if err == nil {
				passed[tx.Body.Kind()]++
			}
		}
		if len(effects) != len(other) {
			t.Fatalf("step %d: of time came %d effects in a loaded state, and %d", step, len(other), len(effects))
		}
		if step%40 != 0 {
			continue
		}
		c, snapshot, err := s.Snapshot()
		if err != nil {
			t.Fatalf("step %d: after %s: %v", step, tx.Body.Kind(), err)
		}
		if d, err := loaded.Root(); err != nil || !d.Equals(c) {
			t.Fatalf("step %d: a loaded state has another root (%v)", step, err)
		}
		if loaded, err = Load(snapshot); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		if due := s.Due(); due != loaded.Due() {
			t.Fatalf("step %d: due at %d and, loaded, at %d", step, due, loaded.Due())
		}
	}
	t.Log(passed, len(s.members), "members")
}
