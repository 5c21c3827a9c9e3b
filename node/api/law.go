package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// Signing is what a signature for an account is made over, besides what it says: a
// node never sees an account's private keys.
type Signing struct {
	Network []byte          `json:"network"` // name of the overlay, 32 bytes: signatures hold in it alone
	Site    string          `json:"site"`    // of this member: it would carry the transaction
	Seq     uint64          `json:"seq"`     // a number for the transaction that is not used yet
	Account *ledger.Account `json:"account"` // null: there is none of that name
}

// Say is one transaction to be ordered: signed by an account, or the word of this
// member. Exactly one field is set.
type Say struct {
	Signed  []byte            `json:"signed,omitempty"` // as ledger.Encode makes it
	Policy  *ledger.SetPolicy `json:"policy,omitempty"`
	Approve *ledger.Approve   `json:"approve,omitempty"`
	Quota   *ledger.SetQuota  `json:"quota,omitempty"`
	Publish *ledger.Publish   `json:"publish,omitempty"` // of what this node holds
}

// Said is where in the order a transaction stands.
type Said struct {
	ID    string `json:"id"`
	Index uint64 `json:"index"`
}

// May asks whether a machine may go somewhere.
type May struct {
	Machine string        `json:"machine"`
	To      string        `json:"to"` // site
	Limits  ledger.Limits `json:"limits"`
}

// Answer is the law's answer: nothing is asked of anyone else.
type Answer struct {
	Machine string   `json:"machine"`
	To      string   `json:"to"`
	Allowed bool     `json:"allowed"`
	Reasons []string `json:"reasons"` // all that is against it
}

// PlanQuery asks what a move would be.
type PlanQuery struct {
	Machine string        `json:"machine"`
	To      string        `json:"to,omitempty"` // site; empty: wherever
	Limits  ledger.Limits `json:"limits"`
}

// Plan is what would become of a move that is asked for now.
type Plan struct {
	Machine string       `json:"machine"`
	From    string       `json:"from"`
	Needs   ledger.Needs `json:"needs"`
	Members []Prospect   `json:"members"`         // the eligible ones by rank, then the others by site
	Silent  []string     `json:"silent"`          // sites that did not answer in time
	Asked   float64      `json:"asked_seconds"`   // that asking the members took
	Planned float64      `json:"planned_seconds"` // that planning itself took
}

// Prospect is a member as the destination of a move.
type Prospect struct {
	Site string `json:"site"`
	ledger.Verdict
	Offer *ledger.Bid `json:"offer,omitempty"`
}

// Law is what accounts and policies allow, and what would become of a move.
type Law interface {
	Signing(ctx context.Context, account string) (Signing, error)
	// Say orders a transaction and waits for what the ledger makes of it.
	Say(ctx context.Context, q Say) (Said, error)
	// MayMove asks nothing of anyone.
	MayMove(ctx context.Context, q May) (Answer, error)
	// Plan asks all members for their offers, and changes nothing.
	Plan(ctx context.Context, q PlanQuery) (Plan, error)
	// Design is the definition of a machine that RunMachine would make, for its
	// account to sign.
	Design(ctx context.Context, r RunMachine, tell Tell) (*ledger.Define, error)
	// ImportImage makes a disk an image that is not published, for its account to sign.
	ImportImage(ctx context.Context, r AddImage, tell Tell) (*ledger.Publish, error)
}

func handleLaw(mux *http.ServeMux, b Law) {
	mux.HandleFunc("GET /v1/accounts/{name}/signing", plain(func(r *http.Request) (any, error) {
		return b.Signing(r.Context(), r.PathValue("name"))
	}))
	mux.HandleFunc("POST /v1/say", task(func(ctx context.Context, _ string, q Say, _ Tell) (any, error) {
		return b.Say(ctx, q)
	}))
	mux.HandleFunc("POST /v1/machines/{name}/may", task(func(ctx context.Context, name string, q May, _ Tell) (any, error) {
		q.Machine = name
		return b.MayMove(ctx, q)
	}))
	mux.HandleFunc("POST /v1/machines/{name}/plan", task(func(ctx context.Context, name string, q PlanQuery, _ Tell) (any, error) {
		q.Machine = name
		return b.Plan(ctx, q)
	}))
	mux.HandleFunc("POST /v1/machines/{name}/design", task(func(ctx context.Context, name string, q RunMachine, t Tell) (any, error) {
		q.Name = name
		return b.Design(ctx, q, t)
	}))
	mux.HandleFunc("POST /v1/images/{name}/import", task(func(ctx context.Context, name string, q AddImage, t Tell) (any, error) {
		q.Name = name
		return b.ImportImage(ctx, q, t)
	}))
}

// Signing asks what a signature for an account is made over.
func (c *Client) Signing(ctx context.Context, account string) (s Signing, err error) {
	return s, c.call(ctx, "GET", "/v1/accounts/"+url.PathEscape(account)+"/signing", nil, &s, nil)
}

// Say orders a transaction.
func (c *Client) Say(ctx context.Context, q Say) (s Said, err error) {
	return s, c.call(ctx, "POST", "/v1/say", q, &s, nil)
}

// MayMove asks what the law has against a move.
func (c *Client) MayMove(ctx context.Context, q May) (a Answer, err error) {
	return a, c.call(ctx, "POST", machinePath(q.Machine)+"/may", q, &a, nil)
}

// Plan asks what a move would be.
func (c *Client) Plan(ctx context.Context, q PlanQuery) (p Plan, err error) {
	return p, c.call(ctx, "POST", machinePath(q.Machine)+"/plan", q, &p, nil)
}

// Design asks for the definition of a machine.
func (c *Client) Design(ctx context.Context, r RunMachine, tell Tell) (d *ledger.Define, err error) {
	d = new(ledger.Define)
	return d, c.call(ctx, "POST", machinePath(r.Name)+"/design", r, d, tell)
}

// ImportImage makes a disk an image that is not published.
func (c *Client) ImportImage(ctx context.Context, r AddImage, tell Tell) (p *ledger.Publish, err error) {
	p = new(ledger.Publish)
	return p, c.call(ctx, "POST", "/v1/images/"+url.PathEscape(r.Name)+"/import", r, p, tell)
}
