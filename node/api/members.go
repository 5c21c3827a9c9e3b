package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// MemberState is how a member stands with the node that is asked.
type MemberState string

// The states of a member. One that is away changes nothing: votes and order count the
// weight of all.
const (
	MemberHere      MemberState = "here"      // the node that is asked
	MemberConnected MemberState = "connected" // and takes part in the order
	MemberAsleep    MemberState = "asleep"    // connected, but the order does not wait for it: it is far behind, or often late
	MemberAway      MemberState = "away"
)

// Member is a member of the overlay.
type Member struct {
	ID       ledger.MemberID `json:"id"`
	Site     string          `json:"site"`
	Region   string          `json:"region,omitempty"`
	Weight   uint64          `json:"weight"`
	Peer     string          `json:"peer"`
	State    MemberState     `json:"state"`
	Since    int64           `json:"since,omitempty"`  // ns since 1970: connected or away since; 0: not known
	RTT      int64           `json:"rtt_us,omitempty"` // microseconds
	Rotating bool            `json:"rotating,omitempty"`
	Machines []string        `json:"machines"` // that it owns
	Record   ledger.Record   `json:"record"`
}

// Proposal is a change of the roster that the members vote on.
type Proposal struct {
	ID      uint64          `json:"id"`
	Change  ledger.Change   `json:"change"`
	Member  ledger.MemberID `json:"member"`
	Site    string          `json:"site"`
	Region  string          `json:"region,omitempty"`
	Weight  uint64          `json:"weight,omitempty"`
	Peer    string          `json:"peer,omitempty"` // of who would join
	Force   bool            `json:"force,omitempty"`
	By      string          `json:"by"` // site
	Reason  string          `json:"reason,omitempty"`
	Yes     []string        `json:"yes"` // sites that have voted for it
	No      []string        `json:"no"`
	Have    uint64          `json:"have"`    // weight of Yes
	Needs   uint64          `json:"needs"`   // weight that is still missing
	Total   uint64          `json:"total"`   // weight of all members
	Expires int64           `json:"expires"` // consensus time, ns since 1970; 0: not known yet
	Open    bool            `json:"open"`    // it waits for votes; else it holds, or was dropped
	Holds   bool            `json:"holds"`   // it has passed
}

// MemberList is the roster, and what would change it.
type MemberList struct {
	Members   []Member   `json:"members"`   // by ID
	Proposals []Proposal `json:"proposals"` // that wait for votes, by ID
	Weight    uint64     `json:"weight"`    // of all
}

// Invite asks for a site to become a member. Its card is its member.json.
type Invite struct {
	Card json.RawMessage `json:"card"`
}

// Invited is what came of it.
type Invited struct {
	Proposal   Proposal        `json:"proposal"`
	Invitation json.RawMessage `json:"invitation"` // the file for the new site
}

// CastVote is a vote on a proposal, or on the one about a site.
type CastVote struct {
	On  string `json:"on"` // site, or number of a proposal
	Yes bool   `json:"yes"`
}

// LeaveOverlay asks for a member to be a member no more.
type LeaveOverlay struct {
	Site   string `json:"site,omitempty"` // empty: the node that is asked
	Force  bool   `json:"force,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// SetMember asks for another weight or region of a member.
type SetMember struct {
	Site   string `json:"site"`
	Region string `json:"region,omitempty"` // empty: as it is
	Weight uint64 `json:"weight,omitempty"` // 0: as it is
}

// Rotated is a member's change of its key.
type Rotated struct {
	Old string `json:"old"` // peer IDs
	New string `json:"new"`
}

// Members are the members of the overlay.
type Members interface {
	ListMembers(ctx context.Context) (MemberList, error)
	InviteMember(ctx context.Context, r Invite) (Invited, error)
	VoteMember(ctx context.Context, r CastVote) (Proposal, error)
	RemoveMember(ctx context.Context, r LeaveOverlay) (Proposal, error)
	SetMember(ctx context.Context, r SetMember) (Proposal, error)
	RotateKey(ctx context.Context) (Rotated, error)
}

// ListMembers implements Members.
func (c *Client) ListMembers(ctx context.Context) (l MemberList, err error) {
	return l, c.call(ctx, "GET", "/v1/members", nil, &l, nil)
}

// InviteMember implements Members.
func (c *Client) InviteMember(ctx context.Context, r Invite) (i Invited, err error) {
	return i, c.call(ctx, "POST", "/v1/members/invite", r, &i, nil)
}

// VoteMember implements Members.
func (c *Client) VoteMember(ctx context.Context, r CastVote) (p Proposal, err error) {
	return p, c.call(ctx, "POST", "/v1/members/vote", r, &p, nil)
}

// RemoveMember implements Members.
func (c *Client) RemoveMember(ctx context.Context, r LeaveOverlay) (p Proposal, err error) {
	return p, c.call(ctx, "POST", "/v1/members/leave", r, &p, nil)
}

// SetMember implements Members.
func (c *Client) SetMember(ctx context.Context, r SetMember) (p Proposal, err error) {
	return p, c.call(ctx, "POST", "/v1/members/set", r, &p, nil)
}

// RotateKey implements Members.
func (c *Client) RotateKey(ctx context.Context) (r Rotated, err error) {
	return r, c.call(ctx, "POST", "/v1/members/rotate", struct{}{}, &r, nil)
}

// serveMembers adds the requests about members.
func serveMembers(mux *http.ServeMux, b Members) {
	mux.HandleFunc("GET /v1/members", plain(func(r *http.Request) (any, error) { return b.ListMembers(r.Context()) }))
	mux.HandleFunc("POST /v1/members/invite", task(func(ctx context.Context, _ string, q Invite, _ Tell) (any, error) { return b.InviteMember(ctx, q) }))
	mux.HandleFunc("POST /v1/members/vote", task(func(ctx context.Context, _ string, q CastVote, _ Tell) (any, error) { return b.VoteMember(ctx, q) }))
	mux.HandleFunc("POST /v1/members/leave", task(func(ctx context.Context, _ string, q LeaveOverlay, _ Tell) (any, error) {
		return b.RemoveMember(ctx, q)
	}))
	mux.HandleFunc("POST /v1/members/set", task(func(ctx context.Context, _ string, q SetMember, _ Tell) (any, error) { return b.SetMember(ctx, q) }))
	mux.HandleFunc("POST /v1/members/rotate", task(func(ctx context.Context, _ string, _ struct{}, _ Tell) (any, error) { return b.RotateKey(ctx) }))
}
