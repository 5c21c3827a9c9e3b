package ledger

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// kinds are all kinds of transactions.
var kinds = []Kind{
	KindPropose, KindVote, KindRotate, KindAccount, KindQuota, KindPublish, KindWithdraw, KindHold, KindDefine, KindSet, KindDelete,
	KindPolicy, KindApprove, KindIntent, KindBid, KindAccept, KindBeat, KindRelease, KindConfirm, KindDecline, KindAbort, KindReclaim,
	KindReport, KindRoot, KindTick,
}

// fill sets every field of v to something that is not zero and differs from others.
func fill(v reflect.Value, n *uint64) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		v.SetUint(*n % 256)
	case reflect.Int64, reflect.Int:
		v.SetInt(-int64(*n))
	default:
		panic("no filling for " + v.Type().String())
	}
}

// filled is a body of a kind with something in every field.
func filled(k Kind) Body {
	b := newBody(k)
	var n uint64
	fill(reflect.ValueOf(b).Elem(), &n)
	return b
}

func TestEveryKindSurvivesItsEncoding(t *testing.T) {
	for _, k := range kinds {
		for _, body := range []Body{filled(k), newBody(k)} {
			if body.Kind() != k {
				t.Errorf("kind %s has a body that says %s", k, body.Kind())
			}
			tx := Tx{Seq: 1<<64 - 1, Account: "acme", Sigs: []Sig{{Key: testPub("k"), Sig: bytes.Repeat([]byte{7}, 64)}}, Body: body}
			raw, err := Encode(tx)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(raw)
			if err != nil {
				t.Fatalf("%s: %v", k, err)
			}
			again, err := Encode(got)
			if err != nil || !bytes.Equal(raw, again) {
				t.Errorf("%s: encoded again it has other bytes (%v)", k, err)
			}
			if k != KindTick && reflect.ValueOf(body).Elem().IsZero() {
				continue // a list that is empty and one that is not there are one
			}
			if !reflect.DeepEqual(got, tx) {
				t.Errorf("%s: was\n%+v\nis\n%+v", k, tx.Body, got.Body)
			}
		}
	}
}

func TestKindsOfBodiesAreAllKnown(t *testing.T) {
	if newBody("none") != nil || newBody(KindSelected) != nil || newBody(KindRoster) != nil {
		t.Error("a kind without a transaction has a body")
	}
	for _, k := range kinds {
		if newBody(k) == nil {
			t.Errorf("kind %s has no body", k)
		}
	}
}

func TestDecodeTakesNothingElse(t *testing.T) {
	encode := func(e any) []byte {
		b, err := merkle.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tick := encode(Tick{})
	sig := []Sig{{Key: []byte{1}, Sig: []byte{2}}}
	for want, raw := range map[string][]byte{
		"version 2 is not known": encode(envelope{2, 1, KindTick, "", nil, tick}),
		`"none" is not known`:    encode(envelope{txVersion, 1, "none", "", nil, tick}),
		"signatures":             encode(envelope{txVersion, 1, KindTick, "acme", nil, tick}),
		"16 signatures":          encode(envelope{txVersion, 1, KindTick, "acme", bytesOf(sig, 17), tick}),
		"only then":              encode(envelope{txVersion, 1, KindTick, "", sig, tick}),
		"decode tick":            encode(envelope{txVersion, 1, KindTick, "", nil, encode(Set{Name: "a"})}),
		"are more than":          make([]byte, MaxTx+1),
		"canonical":              append(encode(envelope{txVersion, 1, KindTick, "", nil, tick}), 0),
		"decode transaction":     nil,
	} {
		if _, err := Decode(raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got: %v", want, err)
		}
	}
	if _, err := Encode(Tx{Body: &Set{Name: strings.Repeat("x", MaxTx)}}); err == nil {
		t.Error("a transaction that is too large is encoded")
	}
	if _, err := Encode(Tx{Body: &Set{Name: "\xff"}}); err == nil {
		t.Error("text that is not UTF-8 is encoded")
	}
}

func bytesOf(sigs []Sig, n int) []Sig {
	var out []Sig
	for range n {
		out = append(out, sigs...)
	}
	return out
}

// TestASignatureIsForOneTransactionOnly changes everything that an account signs: the
// signature does not hold for it any more.
func TestASignatureIsForOneTransactionOnly(t *testing.T) {
	w := newWorld(t, "dc1", "dc2")
	make := Tx{Seq: 1, Account: "acme", Body: &SetAccount{Name: "acme", Keys: [][]byte{testPub("k")}, Threshold: 1, Site: "dc1"}}
	sign := func(tx Tx, net [32]byte, key string) Tx {
		tx.Sigs = nil
		if err := Sign(net, &tx, testKey(key)); err != nil {
			t.Fatal(err)
		}
		return tx
	}
	if _, err := w.carry("dc1", sign(make, testNet, "k")); err != nil {
		t.Fatal(err)
	}
	good := sign(Tx{Seq: 2, Account: "acme", Body: &Publish{Name: "os", Commit: "c", Size: 1, Stored: 1, Site: "dc1"}}, testNet, "k")
	with := func(change func(*Tx, *Publish)) Tx {
		tx, body := good, *good.Body.(*Publish)
		tx.Sigs = append([]Sig(nil), good.Sigs...)
		tx.Body = &body
		change(&tx, &body)
		return tx
	}
	for name, tx := range map[string]Tx{
		"another number":      with(func(tx *Tx, p *Publish) { tx.Seq = 3 }),
		"another name":        with(func(tx *Tx, p *Publish) { p.Name = "db" }),
		"another tag":         with(func(tx *Tx, p *Publish) { p.Tag = "v2" }),
		"another commit":      with(func(tx *Tx, p *Publish) { p.Commit = "d" }),
		"another overlay":     sign(with(func(*Tx, *Publish) {}), [32]byte{1}, "k"),
		"another kind":        with(func(tx *Tx, p *Publish) { tx.Body = &Withdraw{Name: "os"} }),
		"another account":     with(func(tx *Tx, p *Publish) { tx.Account = "dc1" }),
		"another key":         sign(with(func(*Tx, *Publish) {}), testNet, "eve"),
		"no signature":        with(func(tx *Tx, p *Publish) { tx.Sigs = nil }),
		"a short signature":   with(func(tx *Tx, p *Publish) { tx.Sigs[0].Sig = tx.Sigs[0].Sig[:63] }),
		"an empty key":        with(func(tx *Tx, p *Publish) { tx.Sigs[0].Key = nil }),
		"a signature twice":   with(func(tx *Tx, p *Publish) { tx.Sigs = append(tx.Sigs, tx.Sigs[0]) }),
		"as the member's own": with(func(tx *Tx, p *Publish) { tx.Account = "" }),
	} {
		before := w.s.Clone()
		place := w.place("dc1", 1)
		_, err := w.s.Apply(testNet, place, tx)
		if err == nil {
			t.Errorf("%s: taken", name)
		}
		if essence(t, w.s) != essence(t, before) {
			t.Errorf("%s: refused (%v) and the state has changed", name, err)
		}
		if heard, _ := w.s.said.Get("a/acme"); len(heard.numbers()) != 1 {
			t.Errorf("%s: what the account has not said used up its number", name)
		}
	}
	if _, err := w.carry("dc1", good); err != nil {
		t.Errorf("what was signed is refused: %v", err)
	}
	if _, err := w.carry("dc1", good); err == nil {
		t.Error("what was signed is taken twice")
	}
}

// TestSignaturesAreBoundedWork: a transaction with too many signatures, or with ones
// that cannot count, is refused for that before any is verified.
func TestSignaturesAreBoundedWork(t *testing.T) {
	w := newWorld(t, "dc1")
	tx := Tx{Seq: 1, Account: "acme", Body: &SetAccount{Name: "acme", Keys: [][]byte{testPub("k")}, Threshold: 1, Site: "dc1"}}
	for i := range maxSigs + 1 {
		if err := Sign(testNet, &tx, testKey(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.s.Apply(testNet, w.place("dc1", 0), tx)
	if err == nil || !strings.Contains(err.Error(), "17 signatures, 1 to 16 are taken") {
		t.Error(err)
	}
	tx.Sigs = tx.Sigs[:1]
	if _, err = w.s.Apply(testNet, w.place("dc1", 1), tx); err == nil || !strings.Contains(err.Error(), "does not have") {
		t.Error(err)
	}
}

// TestNumbersHoldOnce says numbers in an order that is not theirs: each holds once, as
// long as it is known, and none that is too old to be known.
func TestNumbersHoldOnce(t *testing.T) {
	w := newWorld(t, "dc1", "dc2")
	say := func(n uint64) error {
		_, err := w.carry("dc1", Tx{Seq: n, Body: new(Tick)})
		return err
	}
	for i := range uint64(2 * maxSeen) {
		n := 1000 + (i^1)*10 // each two change places
		if err := say(n); err != nil {
			t.Fatalf("number %d: %v", n, err)
		}
		if err := say(n); err == nil {
			t.Fatalf("number %d is taken twice", n)
		}
	}
	for i := range uint64(2 * maxSeen) {
		if err := say(1000 + i*10); err == nil {
			t.Errorf("number %d is taken again", 1000+i*10)
		}
	}
	for n, want := range map[uint64]string{
		5: "older than the last 256", 1000 + 10*maxSeen - 15: "older than the last 256", 0: "no number",
		1000 + 10*maxSeen: "ordered already", 1000 + 10*(maxSeen-1): "older than the last 256",
	} {
		if err := say(n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("number %d: want %q, got %v", n, want, err)
		}
	}
	if err := say(1000 + 10*maxSeen + 5); err != nil {
		t.Errorf("a number between known ones, never said: %v", err)
	}
	if _, err := w.carry("dc2", Tx{Seq: 1000, Body: new(Tick)}); err != nil {
		t.Errorf("the numbers of others: %v", err)
	}
	if h, _ := w.s.said.Get(memberKey(1)); len(h.numbers()) != maxSeen {
		t.Errorf("%d numbers are remembered", len(h.numbers()))
	}
	if w.s.LastSaid(1) != 1000+10*(2*maxSeen-1) {
		t.Errorf("the last number is %d", w.s.LastSaid(1))
	}
}

func FuzzDecode(f *testing.F) {
	for _, k := range kinds {
		for _, b := range []Body{filled(k), newBody(k)} {
			raw, err := Encode(Tx{Seq: 1, Body: b})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	tx := Tx{Seq: 7, Account: "acme", Body: &Delete{Name: "web1"}}
	if err := Sign(testNet, &tx, testKey("k")); err != nil {
		f.Fatal(err)
	}
	raw, err := Encode(tx)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		tx, err := Decode(b)
		if err != nil {
			return
		}
		raw, err := Encode(tx)
		if err != nil || !bytes.Equal(raw, b) {
			t.Fatalf("%x decodes, but is encoded as %x (%v)", b, raw, err)
		}
		// What decodes can be applied, and what is refused changes nothing.
		w := newWorld(t, "dc1", "dc2")
		w.must("dc1", &Publish{Name: "os", Commit: "c"})
		w.must("dc1", &Define{Name: "web1", Image: "os", Memory: 1})
		tx.Seq = max(tx.Seq, 1000)
		p := w.place("dc1", 5)
		w.s.Advance(p)
		before := essence(t, w.s)
		if _, err := w.s.Apply(testNet, p, tx); err != nil && essence(t, w.s) != before {
			t.Fatalf("%x was refused (%v) and changed the state", b, err)
		}
		if _, _, err := w.s.Snapshot(); err != nil {
			t.Fatalf("after %x the state cannot be kept: %v", b, err)
		}
	})
}

func TestCardsAndRotationsAreSignedForOnePurpose(t *testing.T) {
	key := testPub("k")
	var net [32]byte
	texts := [][]byte{
		CardBytes(net, "a", "b", 1, key, 0), CardBytes(net, "ab", "", 1, key, 0), CardBytes(net, "", "ab", 1, key, 0),
		CardBytes(net, "a", "b", 2, key, 0), CardBytes(net, "a", "b", 1, testPub("l"), 0), CardBytes(net, "a", "b", 1, key, 1),
		CardBytes(testNet, "a", "b", 1, key, 0), RotateBytes(net, 1, key), RotateBytes(net, 2, key), RotateBytes(testNet, 1, key),
		RotateBytes(net, 1, testPub("l")),
	}
	for i, a := range texts {
		sig := ed25519.Sign(testKey("k"), a)
		for j, b := range texts {
			if verify(key, b, sig) != (i == j) {
				t.Errorf("the signature of text %d holds for text %d: %v", i, j, i != j)
			}
		}
	}
}
