package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// testNet is the name of the overlay that tests play in.
var testNet = sha256.Sum256([]byte("test"))

// testKey is the key that goes by a name in tests: a site's own, or an account's.
func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func testPub(name string) []byte { return []byte(testKey(name).Public().(ed25519.PublicKey)) }

// roster reads founders: SITE, SITE/REGION, SITE*WEIGHT or SITE/REGION*WEIGHT.
func roster(fields ...string) []Member {
	var ms []Member
	for i, f := range fields {
		site, weight, heavy := strings.Cut(f, "*")
		site, region, _ := strings.Cut(site, "/")
		m := Member{ID: MemberID(i + 1), Site: site, Region: region, Weight: 1, Key: testPub(site)}
		if heavy {
			w, err := strconv.ParseUint(weight, 10, 64)
			if err != nil {
				panic(err)
			}
			m.Weight = w
		}
		ms = append(ms, m)
	}
	return ms
}

// world is a state with what a test needs to go on: each event has the next index,
// each transaction the next number.
type world struct {
	t     testing.TB
	s     *State
	index uint64
	seq   uint64
}

func newWorld(t testing.TB, founders ...string) *world {
	t.Helper()
	s, err := New(roster(founders...), Rules{})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, s: s}
}

// place is the next event's, by a site at a time in milliseconds; each event has a
// round of its own.
func (w *world) place(site string, at int64) Place {
	w.t.Helper()
	m := w.s.BySite(site)
	if m == nil {
		w.t.Fatalf("there is no member %s", site)
	}
	p := Place{Index: w.index, Round: w.index, Time: Time(at) * Millisecond, Author: m.ID}
	binary.BigEndian.PutUint64(p.Event[:], w.index+1)
	w.index++
	return p
}

// try lets a site carry one transaction in an event of its own. What is refused must
// have changed nothing.
func (w *world) try(site string, body Body) ([]Effect, error) {
	w.t.Helper()
	w.seq++
	return w.carry(site, Tx{Seq: w.seq, Body: body})
}

func (w *world) carry(site string, tx Tx) ([]Effect, error) {
	w.t.Helper()
	p := w.place(site, int64(w.s.now/Millisecond)+1)
	out := w.s.Advance(p)
	err := w.apply(p, tx, &out)
	return out, err
}

// apply applies what has been through the encoding, and appends the effects to out.
func (w *world) apply(p Place, tx Tx, out *[]Effect) error {
	w.t.Helper()
	raw, err := Encode(tx)
	if err != nil {
		w.t.Fatal(err)
	}
	if tx, err = Decode(raw); err != nil {
		return err
	}
	before := essence(w.t, w.s)
	effects, err := w.s.Apply(testNet, p, tx)
	if err != nil && essence(w.t, w.s) != before {
		w.t.Errorf("%s was refused (%v) and changed the state", tx.Body.Kind(), err)
	}
	*out = append(*out, effects...)
	return err
}

// must is try for what is not to be refused.
func (w *world) must(site string, body Body) []Effect {
	w.t.Helper()
	out, err := w.try(site, body)
	if err != nil {
		w.t.Fatalf("%s by %s: %v", body.Kind(), site, err)
	}
	return out
}

// essence is the root of a state without what every transaction changes, refused ones
// too: the digest of outcomes and the numbers that were said.
func essence(t testing.TB, s *State) string {
	t.Helper()
	c := s.Clone()
	c.outcome, c.said = [32]byte{}, fresh(c.said)
	r, err := c.Root()
	if err != nil {
		t.Fatal(err)
	}
	return r.String()
}

func fresh[T any](T) (zero T) { return zero }

// TestTranscripts replays testdata/*. "members" begins with founders. Each "apply" is
// one event of a member, with its transactions a line each; the output is what
// followed. A line is
//
//	[as=ACCOUNT/KEY,KEY…] [n=NUMBER] KIND JSON
//
// where as= is an account's word with its signatures, and n= the transaction's number.
// In the JSON, $key(NAME) is a public key, $keys(NAME,…) are several in order, $card(SITE,REGION,WEIGHT,NAME) and
// $rotate(MEMBER,NAME) are the proofs by that key, $content(ID) is what a vote on a
// proposal names, $json{…} bytes of JSON.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		w := &world{t: t}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.t = t
			if d.Cmd == "members" {
				var err error
				if w.s, err = New(roster(strings.Fields(d.Input)...), Rules{}); err != nil {
					return "error: " + err.Error()
				}
				w.index = 0
				return "ok"
			}
			if d.Cmd == "apply" {
				return w.event(t, d)
			}
			return w.show(t, d)
		})
	})
}

func (w *world) event(t *testing.T, d *datadriven.TestData) string {
	var site string
	var at int64
	d.ScanArgs(t, "by", &site)
	d.ScanArgs(t, "at", &at)
	p := w.place(site, at)
	if d.HasArg("round") {
		d.ScanArgs(t, "round", &p.Round)
	}
	var b strings.Builder
	for _, e := range w.s.Advance(p) {
		fmt.Fprintln(&b, effect(w.s, e))
	}
	for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
		if line == "" {
			continue
		}
		tx, err := w.parse(line)
		if err != nil {
			fmt.Fprintf(&b, "not understood: %v\n", err)
			continue
		}
		var out []Effect
		if err := w.apply(p, tx, &out); err != nil {
			fmt.Fprintf(&b, "refused: %v\n", err)
		}
		for _, e := range out {
			fmt.Fprintln(&b, effect(w.s, e))
		}
	}
	if b.Len() == 0 {
		return "nothing"
	}
	return b.String()
}

// parse reads a line of a transcript.
func (w *world) parse(line string) (Tx, error) {
	w.t.Helper()
	w.seq++
	tx := Tx{Seq: w.seq}
	var keys []string
	for {
		word, rest, _ := strings.Cut(line, " ")
		if as, ok := strings.CutPrefix(word, "as="); ok {
			account, by, _ := strings.Cut(as, "/")
			tx.Account, keys, line = account, strings.Split(by, ","), rest
		} else if n, ok := strings.CutPrefix(word, "n="); ok {
			var err error
			if tx.Seq, err = strconv.ParseUint(n, 10, 64); err != nil {
				w.t.Fatal(err)
			}
			line = rest
		} else {
			tx.Body = newBody(Kind(word))
			if tx.Body == nil {
				return tx, fmt.Errorf("kind %q is not known", word)
			}
			dec := json.NewDecoder(strings.NewReader(w.expand(rest)))
			dec.DisallowUnknownFields()
			if err := dec.Decode(tx.Body); err != nil {
				return tx, err
			}
			break
		}
	}
	for _, k := range keys {
		if err := Sign(testNet, &tx, testKey(k)); err != nil {
			w.t.Fatal(err)
		}
	}
	return tx, nil
}

var call = regexp.MustCompile(`\$(keys?|card|rotate|content)\(([^)]*)\)|\$json(\{[^}]*\})`)

// expand puts keys and proofs into the JSON of a transcript.
func (w *world) expand(text string) string {
	t := w.t
	return call.ReplaceAllStringFunc(text, func(m string) string {
		parts := call.FindStringSubmatch(m)
		args := strings.Split(parts[2], ",")
		var b []byte
		switch parts[1] {
		case "key":
			b = testPub(args[0])
		case "keys":
			slices.SortFunc(args, func(a, b string) int { return bytes.Compare(testPub(a), testPub(b)) })
			for i, name := range args {
				args[i] = `"` + base64.StdEncoding.EncodeToString(testPub(name)) + `"`
			}
			return strings.Join(args, ",")
		case "card":
			weight, err := strconv.ParseUint(args[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			b = ed25519.Sign(testKey(args[3]), CardBytes(testNet, args[0], args[1], weight, testPub(args[3]), w.s.LastNumber(testPub(args[3]))))
		case "rotate":
			id, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			b = ed25519.Sign(testKey(args[1]), RotateBytes(testNet, MemberID(id), testPub(args[1])))
		case "content":
			b = []byte("none")
			for _, p := range w.s.Proposals() {
				if fmt.Sprint(p.ID) == args[0] {
					b = p.Content
				}
			}
		default:
			b = []byte(parts[3])
		}
		return `"` + base64.StdEncoding.EncodeToString(b) + `"`
	})
}

func effect(s *State, e Effect) string {
	var b bytes.Buffer
	b.WriteString(string(e.Kind))
	for _, name := range []string{e.Account, e.Image, e.Machine} {
		if name != "" {
			b.WriteString(" " + name)
		}
	}
	if e.Member != 0 {
		b.WriteString(" " + s.Site(e.Member))
	}
	if e.Move.Machine != "" {
		fmt.Fprintf(&b, " (move %d %s", e.Move.ID, e.Move.Phase)
		if e.Move.To != 0 {
			b.WriteString(" to " + s.Site(e.Move.To))
		}
		if e.Move.Reason != "" {
			b.WriteString(": " + e.Move.Reason)
		}
		b.WriteString(")")
	}
	return b.String()
}

// show answers a question of a transcript about the state.
func (w *world) show(t *testing.T, d *datadriven.TestData) string {
	var name string
	if d.HasArg("name") {
		d.ScanArgs(t, "name", &name)
	}
	switch d.Cmd {
	case "machine":
		return describe(w.s, w.s.Machine(name))
	case "may":
		var to string
		d.ScanArgs(t, "machine", &name)
		d.ScanArgs(t, "to", &to)
		if why := w.s.MayMove(name, w.s.BySite(to).ID, Limits{}); len(why) > 0 {
			return strings.Join(why, "\n")
		}
		return "it may"
	case "roster":
		return w.roster()
	case "proposals":
		return w.proposals()
	case "reserved":
		var b strings.Builder
		for _, m := range w.s.Members() {
			fmt.Fprintf(&b, "%s: %+v\n", m.Site, w.s.Reserved(m.ID))
		}
		return b.String()
	case "json": // of a machine, image or account
		for _, v := range []any{w.s.Machine(name), w.s.Image(name), w.s.Account(name)} {
			if text, _ := json.Marshal(v); string(text) != "null" {
				return string(text)
			}
		}
		return "none"
	}
	t.Fatalf("unknown command %s", d.Cmd)
	return ""
}

func (w *world) roster() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version %d\n", w.s.RosterVersion())
	for _, m := range w.s.Members() {
		fmt.Fprintf(&b, "%d %s", m.ID, m.Site)
		if m.Region != "" {
			b.WriteString("/" + m.Region)
		}
		fmt.Fprintf(&b, ", weight %d, since %d", m.Weight, m.Since)
		if !bytes.Equal(m.Key, testPub(m.Site)) {
			b.WriteString(", another key")
		}
		if len(m.Old) > 0 {
			b.WriteString(", in rotation")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (w *world) proposals() string {
	var b strings.Builder
	for _, p := range w.s.Proposals() {
		fmt.Fprintf(&b, "%d: %s %s (%d) by %s", p.ID, p.Change, p.Site, p.Member, w.s.Site(p.By))
		for _, v := range p.Yes {
			b.WriteString(", yes " + w.s.Site(v.Member))
		}
		for _, v := range p.No {
			b.WriteString(", no " + w.s.Site(v.Member))
		}
		if p.Expires != 0 {
			fmt.Fprintf(&b, ", until %d ms", p.Expires/Millisecond)
		}
		b.WriteByte('\n')
	}
	if b.Len() == 0 {
		return "none"
	}
	return b.String()
}

func describe(s *State, m *Machine) string {
	if m == nil {
		return "none"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s, epoch %d", m.Name, s.Site(m.Owner), m.Epoch)
	if m.Move != nil {
		fmt.Fprintf(&b, ", move %d %s", m.Move.ID, m.Move.Phase)
	}
	for _, h := range m.Handovers {
		fmt.Fprintf(&b, "\nindex %d: epoch %d %s (%s)", h.Index, h.Epoch, s.Site(h.Owner), h.Why)
	}
	return b.String()
}
