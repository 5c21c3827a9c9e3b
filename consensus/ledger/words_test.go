package ledger

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// sentence is one transaction or effect, and the words for it.
type sentence struct {
	by      MemberID
	account string
	body    Body
	effects []Effect
	refused error
	want    string
}

var (
	selected = Move{Machine: "web1", From: 1, To: 2, Epoch: 6, Phase: Copying, Forecast: Forecast{Millis: 4200}, Against: []Against{
		{Member: 3, Reasons: []string{"predicted 9.1 s, 4.9 s more than bob"}},
		{Member: 4, Reasons: []string{"region us is forbidden by the policy of acme", "it lacks 512 MiB of memory"}},
	}}
	ended = Move{Machine: "web1", From: 1, To: 2, Epoch: 6, Phase: Aborted, Reason: "the copying has stood still for 10 min"}
)

var sentences = []sentence{
	{by: 1, body: &Propose{Change: Join, Site: "eve", Region: "eu", Weight: 2, Key: []byte{0xab, 1, 2, 3, 4}}, want: "alice proposes that eve in region eu joins with weight 2 and key ab010203"},
	{by: 1, body: &Propose{Change: Leave, Member: 1, Reason: "the lease of the hall ends"}, want: "alice proposes to leave: the lease of the hall ends"},
	{by: 1, body: &Propose{Change: Leave, Member: 2, Force: true}, want: "alice proposes that bob leaves, with its machines"},
	{by: 1, body: &Propose{Change: Update, Member: 2, Weight: 3}, want: "alice proposes for bob weight 3"},
	{by: 1, body: &Propose{Change: "merge"}, want: "alice proposes a change of kind merge"},
	{by: 2, body: &CastVote{Proposal: 7, Yes: true}, want: "bob votes for proposal 7: eve joins with weight 2"},
	{by: 2, body: &CastVote{Proposal: 8}, want: "bob votes against proposal 8"},
	{by: 2, body: &Rotate{Key: []byte{1, 2, 3, 4, 5}}, effects: []Effect{{Kind: KindRoster, Member: 2}}, want: "bob takes another key, 01020304"},
	{by: 2, body: &Rotate{}, want: "bob forgets its old key"},
	{by: 1, account: "acme", body: &SetAccount{Name: "acme", Keys: make([][]byte, 3), Threshold: 2}, want: "account acme, by way of alice, sets the keys of account acme: 2 of 3 keys must sign"},
	{by: 1, body: &SetQuota{Account: "acme", Quota: Quota{Machines: 5, Memory: 1 << 33}}, want: "alice bounds account acme: 5 machines, 8 GiB of memory"},
	{by: 1, body: &Publish{Name: "os", Tag: "12", Size: 10 << 30, Stored: 1 << 30, Account: "acme"}, want: "alice publishes image os:12 for account acme, 10 GiB in blocks of 1 GiB"},
	{by: 1, body: &Withdraw{Name: "os"}, want: "alice withdraws image os"},
	{by: 1, body: &Hold{Name: "os", Held: true}, want: "alice holds all blocks of image os"},
	{by: 1, body: &Hold{Name: "os"}, want: "alice no longer holds image os"},
	{by: 1, body: &Define{Name: "web1", Image: "os:12", Memory: 1 << 29, Policy: Policy{Regions: []string{"ch", "eu"}}}, want: "alice defines web1 from image os:12, 512 MiB of memory; its policy: only in regions ch eu"},
	{by: 1, body: &Set{Name: "web1", Stopped: true}, want: "alice has stopped web1"},
	{by: 1, body: &Set{Name: "web1"}, want: "alice has started web1"},
	{by: 1, body: &Delete{Name: "web1"}, want: "alice deletes web1"},
	{by: 1, body: &SetPolicy{Machine: "web1"}, want: "alice sets the policy of web1: it allows everything"},
	{by: 1, account: "acme", body: &SetPolicy{Account: "acme", Policy: Policy{NotRegions: []string{"us"}, MaxDowntime: 200, Movers: []string{"acme", "ops"}, Windows: make([]Span, 2)}},
		want: "account acme, by way of alice, sets the policy of account acme: not in regions us, a pause of at most 200 ms, only in 2 windows, a move needs 1 of acme ops"},
	{by: 1, body: &Approve{Machine: "web1", Epoch: 6, To: 2, Until: 2*Hour + Time(1000)}, want: "alice approves the next move of web1 to bob in epoch 6, for 2 h"},
	{by: 1, body: &Intent{Machine: "web1", Only: 2, Needs: Needs{Memory: 1 << 30, MemoryBytes: 100 << 20, DiskBytes: 20 << 20}, Limits: Limits{MaxDowntime: 300}}, want: "alice wants to move web1 to bob and nowhere else: 1 GiB of memory, 120 MiB to send at least, a pause of at most 300 ms"},
	{by: 2, body: &Bid{Machine: "web1", Able: true, MissingData: 120 << 20, Bandwidth: 12 << 20, RTT: 20_500}, want: "bob bids for web1: can take it, lacks 120 MiB, gets 12 MiB/s at 20.5 ms round trip"},
	{by: 2, body: &Bid{Machine: "web1", Able: true, Bandwidth: 1000, RTT: 300}, want: "bob bids for web1: can take it, has the whole image, gets 1000 B/s at 300 µs round trip"},
	{by: 2, body: &Bid{Machine: "web1", Reason: "no driver can"}, want: "bob cannot take web1: no driver can"},
	{by: 4, body: &Bid{Machine: "web1", Reason: "full"}, effects: []Effect{{Kind: KindSelected, Machine: "web1", Move: selected}},
		want: "dave cannot take web1: full; the ledger selects bob for web1: predicted 4.2 s; carol not: predicted 9.1 s, 4.9 s more than bob; dave not: region us is forbidden by the policy of acme, it lacks 512 MiB of memory"},
	{by: 2, body: &Accept{Machine: "web1"}, want: "bob gets ready for web1"},
	{by: 1, body: &Beat{Machine: "web1", Bytes: 3 << 30}, want: "alice is still copying web1: 3 GiB so far"},
	{by: 1, body: &Release{Machine: "web1", Epoch: 7, To: 2}, effects: []Effect{{Kind: KindRelease, Machine: "web1"}}, want: "alice releases web1 to bob, epoch 7"},
	{by: 2, body: &Confirm{Machine: "web1", Epoch: 7}, want: "bob runs web1, epoch 7"},
	{by: 2, body: &Decline{Machine: "web1", Epoch: 7, Reason: "the digest differs"}, want: "bob gives web1 back, epoch 7: the digest differs"},
	{by: 1, body: &Abort{Machine: "web1", Reason: "changed my mind"}, want: "alice ends the move of web1: changed my mind"},
	{by: 1, body: &Reclaim{Machine: "web1", Epoch: 7}, want: "alice takes web1 back, epoch 7: nobody has confirmed it within the lease"},
	{by: 1, body: &Report{Machine: "web1", Truth: Truth{Disk: 1 << 20, Memory: 100 << 20, Pause: 140}}, want: "alice reports the move of web1: 0 B of the image, 1 MiB of disk and 100 MiB of memory were sent, and it paused for 140 ms"},
	{by: 1, body: &Root{Index: 4096, Outcome: []byte{0xca, 0xfe, 0, 1, 2}}, want: "alice has computed cafe0001 after event 4096"},
	{by: 1, body: &Tick{}, want: "alice lets time pass"},
	{by: 9, body: &Tick{}, refused: refuse("member 9 is not in the roster"), want: "member 9 lets time pass; refused: member 9 is not in the roster"},
	{by: 1, body: &Delete{Name: "\x1b[2Jweb1\n"}, refused: refuse("there is no machine \x1b"), want: `alice deletes "·[2Jweb1·"; refused: there is no machine ·`},

	{effects: []Effect{{Kind: KindSelected, Machine: "web1", Move: selected}}, want: "the ledger selects bob for web1: predicted 4.2 s; carol not: predicted 9.1 s, 4.9 s more than bob; dave not: region us is forbidden by the policy of acme, it lacks 512 MiB of memory"},
	{effects: []Effect{{Kind: KindNowhere, Machine: "web1", Move: Move{From: 1, Against: selected.Against[1:]}}}, want: "web1 can go nowhere; dave not: region us is forbidden by the policy of acme, it lacks 512 MiB of memory"},
	{effects: []Effect{{Kind: KindNowhere, Machine: "web1", Move: Move{Reason: "no member has bid"}}}, want: "web1 can go nowhere: no member has bid"},
	{effects: []Effect{{Kind: KindLeaseEnd, Machine: "web1", Move: ended}}, want: "the lease of web1 is over: alice may take it back"},
	{effects: []Effect{{Kind: KindAbort, Machine: "web1", Move: ended}}, want: "the move of web1 to bob has ended: the copying has stood still for 10 min"},
	{effects: []Effect{{Kind: KindRelease, Machine: "web1", Move: ended}}, want: "web1 is released to bob, epoch 7"},
	{effects: []Effect{{Kind: KindConfirm, Machine: "web1", Move: ended}}, want: "web1 runs at bob"},
	{effects: []Effect{{Kind: KindDecline, Machine: "web1", Move: Move{From: 1}}}, want: "web1 is back at alice"},
	{effects: []Effect{{Kind: KindReclaim, Machine: "web1", Move: Move{From: 1}}}, want: "web1 is back at alice"},
	{effects: []Effect{{Kind: KindAccept, Machine: "web1", Move: ended}}, want: "bob gets ready for web1"},
	{effects: []Effect{{Kind: KindRoster, Member: 6}}, want: "frank is a member no more"},
	{effects: []Effect{{Kind: KindRoster, Member: 2}}, want: "the roster changes: bob"},
	{effects: []Effect{{Kind: KindLapsed, Member: 6}}, want: "a proposal about frank has come to nothing"},
	{effects: []Effect{{Kind: KindRejected, Member: 6}}, want: "so many refuse a proposal about frank that it cannot pass"},
	{effects: []Effect{{Kind: KindWithdraw, Image: "os"}, {Kind: KindIntent, Machine: "web1"}}, want: "image.withdraw os; move.intent web1"},
}

// spoken is a state with something to speak of.
func spoken(t *testing.T) *State {
	w := newWorld(t, "alice", "bob/eu", "carol", "dave/us")
	w.s.votes = []*Proposal{{ID: 7, Change: Join, Member: 5, Site: "eve", Weight: 2}}
	w.s.noteRoster(Place{}, Leave, &Member{ID: 6, Site: "frank"}, nil)
	return w.s
}

func TestEverythingHasItsWords(t *testing.T) {
	s := spoken(t)
	for _, c := range sentences {
		p := Place{Index: 9, Author: c.by, Time: 1000}
		if got := Say(s, p, Tx{Seq: 1, Account: c.account, Body: c.body}, c.effects, c.refused); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// TestNoKindIsLeftWithoutWords finds kinds in the source, so that a new one needs a line in
// the table.
func TestNoKindIsLeftWithoutWords(t *testing.T) {
	have := map[Kind]bool{}
	for _, c := range sentences {
		if c.body != nil {
			have[c.body.Kind()] = true
		}
		for _, e := range c.effects {
			have[e.Kind] = true
		}
	}
	f, err := parser.ParseFile(token.NewFileSet(), "bodies.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 || !strings.HasPrefix(v.Names[0].Name, "Kind") {
			return true
		}
		text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		found++
		if !have[Kind(text)] {
			t.Errorf("%s has no sentence in the table", text)
		}
		if b := newBody(Kind(text)); b != nil {
			zero := reflect.New(reflect.TypeOf(b).Elem()).Interface().(Body)
			said := Say(spoken(t), Place{Author: 1}, Tx{Body: zero}, nil, nil)
			if strings.Contains(said, "something of kind") {
				t.Errorf("%s: %s", text, said)
			}
		}
		return true
	})
	if found < 25 {
		t.Errorf("%d kinds were found in bodies.go: the test does not look where they are", found)
	}
}

// TestHostileTextIsMadeFitToPrint: what anyone writes ends up on someone's terminal.
func TestHostileTextIsMadeFitToPrint(t *testing.T) {
	evil := "\x1b]0;x\a\r\n\u202e\x00\xff" + strings.Repeat("w", 5000)
	s := spoken(t)
	for _, b := range []Body{
		&Propose{Change: Change(evil), Site: evil}, &Propose{Change: Join, Site: evil, Region: evil, Reason: evil}, &Publish{Name: evil, Tag: evil, Account: evil},
		&SetPolicy{Machine: evil, Policy: Policy{Regions: []string{evil}, Movers: []string{evil}}}, &Bid{Machine: evil, Reason: evil}, &Abort{Machine: evil, Reason: evil}, &SetAccount{Name: evil},
	} {
		got := Say(s, Place{Author: 1}, Tx{Account: evil, Body: b}, nil, refuse("%s", evil))
		if strings.ContainsAny(got, "\x1b\a\r\n\u202e\x00\xff") || len(got) > 6*maxReason {
			t.Errorf("%T: %d bytes: %.200q", b, len(got), got)
		}
	}
}
