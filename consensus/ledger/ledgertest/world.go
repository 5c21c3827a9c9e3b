package ledgertest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// world makes events. It looks at the state to know what would be honest, and keeps
// all keys, so that what it makes can also be a lie.
type world struct {
	*rand.Rand
	network [32]byte
	s       *ledger.State
	keys    map[string]ed25519.PrivateKey // by public key
	named   map[string]ed25519.PrivateKey
	seqs    map[string]uint64 // the last number of each author
	past    [][]byte          // transactions that were made before
	gone    []ledger.MemberID // who has left
	made    int               // sites and keys so far
	index   uint64
	round   uint64
	now     ledger.Time
	hostile int // of 100 transactions, how many are
}

func newWorld(seed uint64) *world {
	w := &world{
		Rand: rand.New(rand.NewPCG(seed, 0x1ed6e2)), keys: map[string]ed25519.PrivateKey{},
		named: map[string]ed25519.PrivateKey{}, seqs: map[string]uint64{},
	}
	binary.BigEndian.PutUint64(w.network[:], seed+1)
	w.now = ledger.Time(1.7e18) + ledger.Time(w.IntN(7*24*3600))*ledger.Second
	w.hostile = []int{0, 10, 30}[w.IntN(3)]
	return w
}

// key is the key that goes by a name.
func (w *world) key(name string) ed25519.PrivateKey {
	k, ok := w.named[name]
	if !ok {
		seed := sha256.Sum256([]byte(name))
		k = ed25519.NewKeyFromSeed(seed[:])
		w.named[name] = k
		w.keys[string(public(k))] = k
	}
	return k
}

func public(k ed25519.PrivateKey) []byte { return []byte(k.Public().(ed25519.PublicKey)) }

// script is the world before its first event.
func (w *world) script(seed uint64) Script {
	s := Script{Seed: seed, Network: w.network, Rules: ledger.DefaultRules}
	s.Rules.Whole = ledger.Time(1+w.IntN(3600)) * ledger.Second
	s.Rules.Vote = ledger.Time(w.IntN(3*24*3600)+1) * ledger.Second
	n := 1 + w.IntN(7)
	if w.IntN(10) == 0 {
		n = 12
	}
	for range n {
		w.made++
		s.Founders = append(s.Founders, ledger.Member{
			ID: ledger.MemberID(w.made), Site: fmt.Sprintf("s%d", w.made), Region: w.region(), Weight: w.weight(),
			Key: public(w.key(fmt.Sprintf("site %d", w.made))),
		})
	}
	return s
}

func (w *world) region() string { return pick(w, []string{"", "eu", "eu", "us", "ap"}) }

func (w *world) weight() uint64 {
	if w.IntN(8) == 0 {
		return uint64(1)<<32 - uint64(w.IntN(2))
	}
	return uint64(1 + w.IntN(3))
}

// pick is one of a list that is not empty.
func pick[T any](w *world, list []T) T { return list[w.IntN(len(list))] }

// some are those of a list that a coin chooses, in its order.
func some[T any](w *world, list []T, of int) []T {
	var out []T
	for _, x := range list {
		if w.IntN(of) == 0 {
			out = append(out, x)
		}
	}
	return out
}

// event is the next event, with up to four transactions of its author.
func (w *world) event() Event {
	w.index++
	if w.IntN(40) == 0 {
		w.index += uint64(w.IntN(5)) // a replica may begin in between; numbers only grow
	}
	switch n := w.IntN(20); {
	case n < 7:
	case n < 17:
		w.round++
	default:
		w.round += uint64(2 + w.IntN(4))
	}
	w.passTime()
	p := ledger.Place{Index: w.index, Round: w.round, Time: w.now}
	binary.BigEndian.PutUint64(p.Event[:], w.index)
	binary.BigEndian.PutUint64(p.Event[8:], w.Uint64())
	if w.IntN(50) == 0 { // a median may go back
		p.Time -= ledger.Time(w.IntN(100)) * ledger.Second
	}
	ev := Event{Place: p}
	for n := 1 + w.IntN(8)/5 + w.IntN(10)/9; n > 0; n-- {
		by, raw := w.transaction()
		if ev.Place.Author != 0 && by != ev.Place.Author && w.IntN(6) > 0 {
			continue
		}
		if ev.Place.Author == 0 {
			ev.Place.Author = by
		}
		if raw != nil {
			ev.Txs = append(ev.Txs, raw)
		}
	}
	return ev
}

func (w *world) passTime() {
	switch n := w.IntN(100); {
	case n < 20:
	case n < 72:
		w.now += ledger.Time(w.IntN(50)) * ledger.Millisecond
	case n < 88:
		w.now += ledger.Time(500+w.IntN(3000)) * ledger.Millisecond
	case n < 95:
		w.now += ledger.Time(10+w.IntN(50)) * ledger.Second
	case n < 98:
		w.now += ledger.Time(1+w.IntN(600)) * ledger.Minute
	case n < 99:
		w.now += ledger.Time(1+w.IntN(100)) * ledger.Day
	}
}

// transaction is one transaction as bytes, and who carries it.
func (w *world) transaction() (ledger.MemberID, []byte) {
	by, account, body := w.honest()
	tx := ledger.Tx{Account: account, Body: body}
	lie := w.IntN(100) < w.hostile
	if lie && w.IntN(8) == 0 && len(w.past) > 0 {
		return w.anyone(), pick(w, w.past)
	}
	if lie {
		by = w.twist(by, &tx)
	}
	author := fmt.Sprint("m/", by)
	if tx.Account != "" {
		author = "a/" + tx.Account
	}
	w.seqs[author]++
	if w.IntN(60) == 0 {
		w.seqs[author] += uint64(w.IntN(400))
	}
	tx.Seq = w.seqs[author]
	network := w.network
	if lie && w.IntN(6) == 0 {
		tx.Seq -= min(tx.Seq, uint64(w.IntN(4)))
	}
	if lie && w.IntN(6) == 0 {
		network[3]++ // as if said in another overlay
	}
	w.sign(network, &tx, lie)
	raw, err := ledger.Encode(tx)
	if err != nil {
		return by, nil // larger than a transaction may be, or no text
	}
	if lie && w.IntN(8) == 0 {
		raw = w.spoil(raw)
	}
	w.past = append(w.past, raw)
	return by, raw
}

// sign signs what is of an account by the keys that it takes.
func (w *world) sign(network [32]byte, tx *ledger.Tx, lie bool) {
	if tx.Account == "" {
		return
	}
	var keys [][]byte
	need := 1
	if acc := w.s.Account(tx.Account); acc != nil && len(acc.Keys) > 0 {
		keys, need = acc.Keys, acc.Threshold
	}
	if set, ok := tx.Body.(*ledger.SetAccount); ok {
		if len(keys) == 0 {
			keys, need = set.Keys, len(set.Keys)
		} else if len(set.Keys) > 0 && w.IntN(4) > 0 {
			keys, need = append(slices.Clone(keys[:min(need, len(keys))]), set.Keys...), len(keys)+len(set.Keys)
		}
	}
	if lie && w.IntN(4) == 0 {
		need--
	}
	from := 0
	if need < len(keys) {
		from = w.IntN(len(keys) - need + 1)
	}
	signed := map[string]bool{}
	for i := 0; i < need && from+i < len(keys); i++ {
		k, ok := w.keys[string(keys[from+i])]
		if !ok || signed[string(keys[from+i])] {
			continue
		}
		signed[string(keys[from+i])] = true
		if lie && w.IntN(5) == 0 {
			k = w.key("stranger")
		}
		if err := ledger.Sign(network, tx, k); err != nil {
			return
		}
	}
	if lie && w.IntN(6) == 0 && len(tx.Sigs) > 0 {
		tx.Sigs = append(tx.Sigs, tx.Sigs[0])
	}
}

// anyone is a member, one that has left, or none.
func (w *world) anyone() ledger.MemberID {
	switch n := w.IntN(12); {
	case n == 0 && len(w.gone) > 0:
		return pick(w, w.gone)
	case n == 1:
		return ledger.MemberID(w.IntN(40))
	}
	return pick(w, w.s.Members()).ID
}

func (w *world) member() ledger.MemberID { return pick(w, w.s.Members()).ID }

func (w *world) machine() *ledger.Machine {
	all := w.s.SortedMachines()
	if len(all) == 0 {
		return nil
	}
	if w.IntN(3) > 0 { // those that move are more interesting
		if moving := slices.DeleteFunc(slices.Clone(all), func(m *ledger.Machine) bool { return m.Move == nil }); len(moving) > 0 {
			return pick(w, moving)
		}
	}
	return pick(w, all)
}
