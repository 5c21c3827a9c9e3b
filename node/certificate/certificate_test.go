package certificate

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
)

// overlay is a ledger to which members speak in signed events, each of which is ordered
// at once.
type overlay struct {
	t        testing.TB
	network  [32]byte
	founders []ledger.Member
	keys     map[ledger.MemberID]ed25519.PrivateKey
	state    *ledger.State
	events   map[consensus.Hash][]byte
	seq      uint64
	last     []byte // the last event
}

func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(k ed25519.PrivateKey) []byte { return k.Public().(ed25519.PublicKey) }

// found makes an overlay of sites of weight one.
func found(t testing.TB, name string, sites ...string) *overlay {
	t.Helper()
	o := &overlay{t: t, network: sha256.Sum256([]byte(name)), keys: map[ledger.MemberID]ed25519.PrivateKey{}, events: map[consensus.Hash][]byte{}}
	for i, site := range sites {
		id := ledger.MemberID(i + 1)
		o.keys[id] = key(site)
		o.founders = append(o.founders, ledger.Member{ID: id, Site: site, Weight: 1, Key: public(key(site))})
	}
	var err error
	if o.state, err = ledger.New(o.founders, ledger.Rules{}); err != nil {
		t.Fatal(err)
	}
	return o
}

// event is one by a member, signed with a key.
func (o *overlay) event(by ledger.MemberID, k ed25519.PrivateKey, bodies ...ledger.Body) []byte {
	o.t.Helper()
	e := &consensus.Event{Network: o.network, Creator: uint64(by), Time: consensus.Timestamp(o.seq + 1)}
	for _, b := range bodies {
		o.seq++
		raw, err := ledger.Encode(ledger.Tx{Seq: o.seq, Body: b})
		if err != nil {
			o.t.Fatal(err)
		}
		e.Payload = append(e.Payload, raw)
	}
	e.Seq = o.seq
	e.Sign(k)
	o.events[e.Hash()] = e.Marshal()
	return o.events[e.Hash()]
}

// say orders what a member says.
func (o *overlay) say(site string, bodies ...ledger.Body) {
	o.t.Helper()
	m := o.state.BySite(site)
	o.last = o.event(m.ID, o.keys[m.ID], bodies...)
	e, err := consensus.Unmarshal(o.last)
	if err != nil {
		o.t.Fatal(err)
	}
	p := ledger.Place{Index: o.state.Next(), Round: o.state.Next() + 1, Time: ledger.Time(o.state.Next()+1) * ledger.Millisecond, Author: m.ID, Event: e.Hash()}
	o.state.Advance(p)
	for _, raw := range e.Payload {
		tx, err := ledger.Decode(raw)
		if err == nil {
			_, err = o.state.Apply(o.network, p, tx)
		}
		if err != nil {
			o.t.Fatalf("%s says %s: %v", site, tx.Body.Kind(), err)
		}
	}
}

// move moves web1 from one site to another and gives the event that confirmed it.
func (o *overlay) move(from, to string) []byte {
	o.t.Helper()
	now := o.state.Machine("web1")
	needs := ledger.Needs{Memory: 1 << 20, Driver: "memvm", Version: "1", MemoryBytes: 1 << 20}
	id := o.state.BySite(to).ID
	o.say(from, &ledger.Intent{Machine: "web1", Epoch: now.Epoch, Only: id, Needs: needs})
	mv := o.state.Machine("web1").Move
	o.say(to, &ledger.Bid{Machine: "web1", Move: mv.ID, Able: true, Expires: o.state.Now() + ledger.Second*30, FreeMemory: 1 << 40, FreeDisk: 1 << 40, FreeVCPUs: 8, Driver: "memvm", Version: "1", Bandwidth: 1 << 30, RTT: 100})
	o.say(to, &ledger.Accept{Machine: "web1", Move: mv.ID})
	o.say(from, &ledger.Release{Machine: "web1", Move: mv.ID, Epoch: now.Epoch + 1, To: id})
	o.say(to, &ledger.Confirm{Machine: "web1", Epoch: now.Epoch + 1})
	return o.last
}

func (o *overlay) machine(at string) {
	o.t.Helper()
	o.say(at, &ledger.Publish{Name: "os", Commit: "bafy", Size: 10, Stored: 5})
	o.say(at, &ledger.Define{Name: "web1", Image: "os", Spec: []byte(`{}`), Memory: 1 << 20})
}

func (o *overlay) join(by, site string) {
	o.t.Helper()
	k := key(site)
	o.say(by, &ledger.Propose{Change: ledger.Join, Site: site, Region: "eu", Weight: 1, Key: public(k), Proof: ed25519.Sign(k, ledger.CardBytes(o.network, site, "eu", 1, public(k), o.state.LastNumber(public(k))))})
	o.keys[o.state.Proposals()[0].Member] = k
}

// pass has sites vote for the open proposal.
func (o *overlay) pass(sites ...string) {
	o.t.Helper()
	for _, s := range sites {
		o.say(s, o.state.Proposals()[0].Vote(true))
	}
	if len(o.state.Proposals()) > 0 {
		o.t.Fatal("the proposal has not passed")
	}
}

func (o *overlay) rotate(site, next string) {
	o.t.Helper()
	id, k := o.state.BySite(site).ID, key(next)
	o.say(site, &ledger.Rotate{Key: public(k), Proof: ed25519.Sign(k, ledger.RotateBytes(o.network, id, public(k)))})
	o.keys[id] = k
	o.say(site, &ledger.Rotate{})
}

func (o *overlay) parts(confirm []byte) Parts {
	o.t.Helper()
	digest, err := o.state.Digest()
	if err != nil {
		o.t.Fatal(err)
	}
	p := Parts{Network: o.network, Founders: o.founders, State: o.state, Machine: "web1", Confirm: confirm, Event: func(h consensus.Hash) ([]byte, error) {
		if raw := o.events[h]; raw != nil {
			return raw, nil
		}
		return nil, fmt.Errorf("there is no event %x", h)
	}}
	for _, m := range o.state.Members() {
		p.Signatures = append(p.Signatures, Signature{m.ID, ed25519.Sign(o.keys[m.ID], Statement(o.network, o.state.Next()-1, digest))})
	}
	return p
}

// lived is an overlay with a past: dave is let in and moved to, carol leaves, bob has
// another key and more weight, and votes were cast with the key before.
func lived(t testing.TB) (*overlay, []byte) {
	o := found(t, "the overlay", "alice", "bob", "carol")
	o.machine("alice")
	o.join("bob", "dave")
	o.pass("alice", "carol")
	o.say("alice", &ledger.Propose{Change: ledger.Update, Member: 2, Weight: 2})
	o.say("bob", o.state.Proposals()[0].Vote(true))
	o.rotate("bob", "bob's second")
	o.pass("dave")
	o.move("alice", "bob")
	o.say("carol", &ledger.Propose{Change: ledger.Leave, Member: 3, Reason: "the hall is closed"})
	o.pass("alice", "bob")
	return o, o.move("bob", "dave")
}

func TestCertificateShowsTheMoveToWhoHasTheGenesis(t *testing.T) {
	o, confirm := lived(t)
	for _, c := range []struct {
		epoch    uint64
		by, to   string
		confirms bool
	}{{2, "alice", "bob", false}, {3, "bob", "dave", true}} {
		p := o.parts(confirm)
		p.Epoch = c.epoch
		if !c.confirms {
			p.Confirm = nil
		}
		cert, err := Build(p)
		if err != nil {
			t.Fatal(err)
		}
		b, err := cert.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 100<<10 {
			t.Errorf("the certificate has %d bytes", len(b))
		}
		again, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Verify(o.founders, o.network, again)
		if err != nil {
			t.Fatal(err)
		}
		h := o.state.Machine("web1").Handovers[c.epoch-1]
		if f.By != c.by || f.To != c.to || f.Epoch != c.epoch || f.Index != h.Index || f.Event != fmt.Sprintf("%x", h.Event) || f.Confirmed != c.confirms || f.Changes != 4 {
			t.Errorf("found %+v", f)
		}
	}
}

// leaf is one value of a certificate, and how to put another in its place.
type leaf struct {
	path string
	set  func(v any)
	v    any
}

func leaves(path string, v any, set func(any)) []leaf {
	var out []leaf
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			out = append(out, leaves(path+"."+k, e, func(n any) { x[k] = n })...)
		}
	case []any:
		for i, e := range x {
			out = append(out, leaves(fmt.Sprintf("%s[%d]", path, i), e, func(n any) { x[i] = n })...)
		}
	default:
		out = append(out, leaf{path, set, v})
	}
	return out
}

// flips are values next to a leaf's.
func flips(v any) []any {
	switch x := v.(type) {
	case json.Number:
		return []any{json.Number(string(x) + "1"), json.Number("0"), json.Number("4")}
	case string:
		out := []any{"", x + "A"}
		for _, at := range []int{0, len(x) / 3, len(x) / 2, len(x) - 5, len(x) - 1} { // the signature of an event is at its end
			if at >= 0 && at < len(x) {
				c := byte('1')
				if x[at] == c {
					c = '2'
				}
				out = append(out, x[:at]+string(c)+x[at+1:])
			}
		}
		return out
	}
	return nil
}

// TestNoFieldCanBeAnother changes each value of the file.
func TestNoFieldCanBeAnother(t *testing.T) {
	o, confirm := lived(t)
	cert, err := Build(o.parts(confirm))
	if err != nil {
		t.Fatal(err)
	}
	b, err := cert.Encode()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var tree map[string]any
	if err := dec.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	all := leaves("", tree, nil)
	if len(all) < 50 {
		t.Fatalf("only %d values", len(all))
	}
	tried := 0
	for _, l := range all {
		for _, n := range flips(l.v) {
			if n == l.v || l.path == ".confirm" && n == "" { // without it, it shows less
				continue
			}
			l.set(n)
			text, err := json.Marshal(tree)
			if err != nil {
				t.Fatal(err)
			}
			l.set(l.v)
			tried++
			c := new(Certificate)
			if json.Unmarshal(text, c) != nil {
				continue // it cannot even be read
			}
			if f, err := Verify(o.founders, o.network, c); err == nil {
				t.Errorf("%s: %v instead of %v passes: %s", l.path, n, l.v, f.Sentence())
			}
		}
	}
	t.Logf("%d values, %d changes", len(all), tried)
}

func TestEditedFileIsNotRead(t *testing.T) {
	o, confirm := lived(t)
	cert, err := Build(o.parts(confirm))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := cert.Encode()
	for name, text := range map[string][]byte{
		"spaces":    bytes.Replace(b, []byte(`"epoch": 3`), []byte(`"epoch":  3`), 1),
		"more":      append(slices.Clone(b), '{', '}'),
		"a field":   bytes.Replace(b, []byte(`"epoch": 3`), []byte(`"epoch": 3, "note": "x"`), 1),
		"cut short": b[:len(b)/2],
		"nothing":   nil,
		"too large": bytes.Repeat([]byte{' '}, MaxSize+1),
	} {
		if _, err := Decode(text); err == nil {
			t.Errorf("%s: it is read", name)
		}
	}
}

// TestForgedChainsAreRefused: whatever someone puts together of true and false parts.
func TestForgedChainsAreRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		forge func(o *overlay, c *Certificate)
		want  string
	}{
		{"of another overlay", func(o *overlay, c *Certificate) { c.Network = bytes.Repeat([]byte{7}, 32) }, "of overlay"},
		{"signed by too few", func(o *overlay, c *Certificate) { c.Signatures = c.Signatures[:1] }, "more than two thirds"},
		{"signed twice by one", func(o *overlay, c *Certificate) { c.Signatures[1] = c.Signatures[0] }, "ascending"},
		{"signed for another place", func(o *overlay, c *Certificate) {
			c.Index--
		}, "does not hold"},
		{"a change is left out", func(o *overlay, c *Certificate) { c.Roster = c.Roster[1:] }, ""},
		{"the last change is left out", func(o *overlay, c *Certificate) { c.Roster = c.Roster[:3] }, "not in the roster|roster has changed|another|members"},
		{"a change comes twice", func(o *overlay, c *Certificate) { c.Roster = append(c.Roster, c.Roster[3]) }, ""},
		{"voted for by too few", func(o *overlay, c *Certificate) { c.Roster[0].Events = c.Roster[0].Events[:2] }, "weight 2 of 3 voted"},
		{"a vote comes twice", func(o *overlay, c *Certificate) { c.Roster[0].Events[2] = c.Roster[0].Events[1] }, "votes twice"},
		{"another joins by the votes for dave", func(o *overlay, c *Certificate) {
			k := key("mallory")
			// Bob has turned: he proposes mallory in an event of his own.
			o.event(2, key("bob"), &ledger.Propose{Change: ledger.Join, Site: "mallory", Weight: 100, Key: public(k), Proof: ed25519.Sign(k, ledger.CardBytes(o.network, "mallory", "", 100, public(k), 0))})
			for _, raw := range o.events {
				if e, _ := consensus.Unmarshal(raw); slices.ContainsFunc(said[*ledger.Propose](e), func(p *ledger.Propose) bool { return p.Site == "mallory" }) {
					t := &c.Roster[0]
					t.Events[0], t.Site, t.Region, t.Weight, t.Key = raw, "mallory", "", 100, public(k)
				}
			}
		}, "holds no vote for it"},
		{"a rotation that the old key has not signed", func(o *overlay, c *Certificate) {
			k := key("mallory")
			t := &c.Roster[1]
			t.Key = public(k)
			t.Events[0] = o.event(2, k, &ledger.Rotate{Key: public(k), Proof: ed25519.Sign(k, ledger.RotateBytes(o.network, 2, public(k)))})
		}, "is not signed by member 2"},
		{"a rotation without the new key's proof", func(o *overlay, c *Certificate) {
			k := key("mallory")
			t := &c.Roster[1]
			t.Key = public(k)
			t.Events[0] = o.event(2, key("bob"), &ledger.Rotate{Key: public(k), Proof: make([]byte, 64)})
		}, "does not name key"},
		{"a release that was never ordered", func(o *overlay, c *Certificate) {
			c.Release = o.event(2, key("bob's second"), &ledger.Release{Machine: "web1", Move: 1, Epoch: 3, To: 4})
		}, "the state names event"},
		{"an epoch that was not", func(o *overlay, c *Certificate) { c.Epoch = 9 }, "no handover with epoch 9"},
		{"an epoch that was no release", func(o *overlay, c *Certificate) { c.Epoch = 1 }, "was no release"},
		{"a confirmation by another", func(o *overlay, c *Certificate) {
			c.Confirm = o.event(1, key("alice"), &ledger.Confirm{Machine: "web1", Epoch: 3})
		}, "does not confirm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, confirm := lived(t)
			cert, err := Build(o.parts(confirm))
			if err != nil {
				t.Fatal(err)
			}
			c.forge(o, cert)
			f, err := Verify(o.founders, o.network, cert)
			if err == nil {
				t.Fatalf("it passes: %s", f.Sentence())
			}
			if !slices.ContainsFunc(strings.Split(c.want, "|"), func(w string) bool { return strings.Contains(err.Error(), w) }) {
				t.Errorf("refused with %q, want %q", err, c.want)
			}
		})
	}
}

// TestStateOfOthersIsRefused: a whole overlay of the forger's own, with true signatures.
func TestStateOfOthersIsRefused(t *testing.T) {
	o, _ := lived(t)
	forged := found(t, "the overlay", "alice", "bob", "carol")
	for i := range forged.founders { // their sites, other keys
		k := key(fmt.Sprint("forged", i))
		forged.keys[forged.founders[i].ID], forged.founders[i].Key = k, public(k)
	}
	var err error
	if forged.state, err = ledger.New(forged.founders, ledger.Rules{}); err != nil {
		t.Fatal(err)
	}
	forged.machine("alice")
	confirm := forged.move("alice", "bob")
	cert, err := Build(forged.parts(confirm))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(o.founders, o.network, cert); err == nil {
		t.Error("it passes with the true genesis")
	}
}

func TestWhatCannotBeCertifiedIsNamed(t *testing.T) {
	o, confirm := lived(t)
	for _, c := range []struct {
		change func(p *Parts)
		want   string
	}{
		{func(p *Parts) { p.Machine = "web2" }, `no machine "web2"`},
		{func(p *Parts) { p.Epoch = 1 }, "was no release"},
		{func(p *Parts) { p.Epoch = 77 }, "epoch 77"},
		{func(p *Parts) { p.Signatures = p.Signatures[1:2] }, "more than two thirds"},
		{func(p *Parts) {
			p.Event = func(consensus.Hash) ([]byte, error) { return nil, fmt.Errorf("the log begins later") }
		}, "the log begins later"},
	} {
		p := o.parts(confirm)
		c.change(&p)
		if _, err := Build(p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	o, confirm := lived(f)
	cert, err := Build(o.parts(confirm))
	if err != nil {
		f.Fatal(err)
	}
	b, err := cert.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, text []byte) {
		c := new(Certificate)
		if json.Unmarshal(text, c) != nil {
			return
		}
		if _, err := Verify(o.founders, o.network, c); err == nil {
			if again, _ := c.Encode(); !bytes.Equal(again, b) && len(c.Confirm) > 0 {
				t.Errorf("another certificate passes: %s", again)
			}
		}
	})
}
