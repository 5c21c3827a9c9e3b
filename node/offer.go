package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

// What members ask each other before anything is ordered. Both are answered by the
// code that a real move uses, so that a plan is as good as a move.
const (
	protoOffer = "/offer/1" // what would you bid for a machine with these needs?
	protoNeeds = "/needs/1" // what does a machine of yours need?

	maxAnswer    = 128 << 10       // bytes
	offersWithin = 3 * time.Second // for all members to say what they offer
	offerWithin  = 2 * time.Second // for one to find out: the rest is the way there and back
	needsWithin  = 5 * time.Second // for the owner to look at its machine
)

// offerQuery asks for an offer.
type offerQuery struct {
	Machine string       `json:"machine"`
	Needs   ledger.Needs `json:"needs"` // without Paths and what does not matter to a bidder
}

// needsQuery asks the owner of a machine.
type needsQuery struct {
	Machine string `json:"machine"`
}

// asked bounds how often each member may ask. Its zero value is ready.
type asked struct {
	mu sync.Mutex
	of map[ledger.MemberID]*rate.Limiter
}

// A plan takes one question of each kind. Who plans in a loop is slowed down.
const (
	asksPerSecond = 2
	asksAtOnce    = 10
)

func (a *asked) may(id ledger.MemberID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = map[ledger.MemberID]*rate.Limiter{}
	}
	l := a.of[id]
	if l == nil {
		l = rate.NewLimiter(asksPerSecond, asksAtOnce)
		a.of[id] = l
	}
	return l.Allow()
}

// serveOffers answers other members.
func (n *Node) serveOffers() {
	n.overlay.HandleRequest(protoOffer, func(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
		var q offerQuery
		if err := n.admitAsk(from, req, &q); err != nil {
			return nil, err
		}
		s, err := n.order.State(ctx)
		if err != nil {
			return nil, err
		}
		m := s.Machine(q.Machine)
		if m == nil {
			return nil, fmt.Errorf("there is no machine %.70q", q.Machine)
		}
		ctx, cancel := context.WithTimeout(ctx, offerWithin)
		defer cancel()
		return json.Marshal(n.offer(ctx, q.Machine, m.Owner, q.Needs))
	})
	n.overlay.HandleRequest(protoNeeds, func(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
		var q needsQuery
		if err := n.admitAsk(from, req, &q); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, needsWithin)
		defer cancel()
		needs, err := n.needsHere(ctx, q.Machine)
		if err != nil {
			return nil, err
		}
		return json.Marshal(needs)
	})
}

// admitAsk reads what a member asks, if it may.
func (n *Node) admitAsk(from peer.ID, req []byte, q any) error {
	id := n.member(from)
	switch {
	case id == 0:
		return errors.New("you are not a member")
	case !n.asks.may(id):
		return errors.New("too many questions: ask again in some seconds")
	}
	return json.Unmarshal(req, q)
}

// needsHere are the needs of a machine that runs here.
func (n *Node) needsHere(ctx context.Context, name string) (ledger.Needs, error) {
	m, lm, err := n.ours(ctx, name)
	if err != nil {
		return ledger.Needs{}, err
	}
	if lm.Stopped || !n.lives(ctx, m) {
		return ledger.Needs{}, fmt.Errorf("machine %s does not run: start it first", name)
	}
	if c := m.driver.Probe(ctx); !c.CanMigrate {
		return ledger.Needs{}, fmt.Errorf("machine %s cannot migrate: %s", name, c.WhyNot)
	}
	return n.needs(ctx, m), nil
}

// needsOf are the needs of a machine, wherever it is.
func (n *Node) needsOf(ctx context.Context, s *ledger.State, m *ledger.Machine) (ledger.Needs, error) {
	if n.owns(m) {
		return n.needsHere(ctx, m.Name)
	}
	var needs ledger.Needs
	ctx, cancel := context.WithTimeout(ctx, needsWithin)
	defer cancel()
	err := n.inquire(ctx, m.Owner, protoNeeds, needsQuery{m.Name}, &needs)
	if err != nil {
		return needs, fmt.Errorf("ask %s what machine %s needs: %w", s.Site(m.Owner), m.Name, err)
	}
	return needs, nil
}

// inquire sends one question to a member.
func (n *Node) inquire(ctx context.Context, to ledger.MemberID, proto string, q, answer any) error {
	p := n.peer(to)
	if p == "" {
		return fmt.Errorf("%s is no member any more", n.site(to))
	}
	req, err := json.Marshal(q)
	if err != nil {
		return err
	}
	raw, err := n.overlay.Request(ctx, p, proto, req, maxAnswer)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, answer)
}

// offers asks members what they would bid. Who does not answer in time has not bid.
func (n *Node) offers(ctx context.Context, m *ledger.Machine, needs ledger.Needs, of []ledger.MemberID) (bids []ledger.Bid, silent []ledger.MemberID) {
	ctx, cancel := context.WithTimeout(ctx, offersWithin)
	defer cancel()
	needs.Paths = nil
	all := make([]*ledger.Bid, len(of))
	var wg sync.WaitGroup
	for i, id := range of {
		wg.Go(func() {
			if id == n.self {
				all[i] = n.offer(ctx, m.Name, m.Owner, needs)
				return
			}
			var b ledger.Bid
			if err := n.inquire(ctx, id, protoOffer, offerQuery{m.Name, needs}, &b); err != nil {
				n.log.Debug("a member makes no offer", "site", n.site(id), "machine", m.Name, "cause", err)
				return
			}
			all[i] = &b
		})
	}
	wg.Wait()
	for i, b := range all {
		if b == nil {
			silent = append(silent, of[i])
			continue
		}
		b.Member, b.Machine, b.Move, b.Index = of[i], m.Name, 0, 0
		bids = append(bids, *b)
	}
	return bids, silent
}

// Plan implements api.Law.
func (n *Node) Plan(ctx context.Context, q api.PlanQuery) (api.Plan, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return api.Plan{}, err
	}
	only, err := destination(s, q.Machine, q.To)
	if err != nil {
		return api.Plan{}, err
	}
	m := s.Machine(q.Machine)
	switch {
	case m.Move != nil:
		return api.Plan{}, fmt.Errorf("machine %s is moving already (%s): wait for the end", m.Name, m.Move.Phase)
	case only == m.Owner:
		return api.Plan{}, fmt.Errorf("machine %s is at %s already", m.Name, q.To)
	}
	began := time.Now()
	needs, err := n.needsOf(ctx, s, m)
	if err != nil {
		return api.Plan{}, err
	}
	var of []ledger.MemberID
	for _, x := range s.Members() {
		if x.ID != m.Owner && (only == 0 || x.ID == only) {
			of = append(of, x.ID)
		}
	}
	bids, silent := n.offers(ctx, m, needs, of)
	p := api.Plan{Machine: m.Name, From: s.Site(m.Owner), Needs: needs, Silent: []string{}, Asked: time.Since(began).Seconds()}
	for _, id := range silent {
		p.Silent = append(p.Silent, s.Site(id))
	}
	if s, err = n.order.State(ctx); err != nil {
		return p, err
	}
	began = time.Now()
	vs, err := s.Plan(q.Machine, needs, only, q.Limits, bids)
	p.Planned = time.Since(began).Seconds()
	if err != nil {
		return p, err
	}
	p.Members = prospects(s, vs, bids, of)
	return p, nil
}

// prospects are the verdicts on those that were asked, the best first.
func prospects(s *ledger.State, vs []ledger.Verdict, bids []ledger.Bid, of []ledger.MemberID) []api.Prospect {
	out := []api.Prospect{}
	for _, v := range vs {
		if !slices.Contains(of, v.Member) {
			continue
		}
		x := api.Prospect{Site: s.Site(v.Member), Verdict: v}
		if i := slices.IndexFunc(bids, func(b ledger.Bid) bool { return b.Member == v.Member }); i >= 0 {
			x.Offer = &bids[i]
		}
		out = append(out, x)
	}
	slices.SortStableFunc(out, func(a, b api.Prospect) int {
		switch {
		case a.Eligible && b.Eligible:
			return cmp.Compare(a.Rank, b.Rank)
		case a.Eligible != b.Eligible && a.Eligible:
			return -1
		case a.Eligible != b.Eligible:
			return 1
		}
		return cmp.Compare(a.Site, b.Site)
	})
	return out
}
