package node

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/node/resume"
)

// protoResume continues a migration whose link was cut: the source says of which session
// and how far it has read, the destination how far it has, and the streams of package
// resume go on from there.
const protoResume = "/migrate/resume/1"

// sessionBytes is the length of the secret that both sides of a transfer share. Only
// they, and nobody who knows the move from the ledger, can continue it.
const sessionBytes = 16

// answerWithin bounds the destination's answer to a source that resumes.
const answerWithin = 10 * time.Second

// again is what a source says that resumes.
type again struct {
	Machine  string `json:"machine"`
	Move     uint64 `json:"move"`
	Epoch    uint64 `json:"epoch"`
	Session  []byte `json:"session"`
	Attempt  uint64 `json:"attempt"`
	Received uint64 `json:"received"` // bytes that it has read
}

// position is the destination's answer.
type position struct {
	Received uint64 `json:"received"` // bytes that it has read
	Error    string `json:"error,omitempty"`
	Over     bool   `json:"over,omitempty"` // with Error: asking again is no use
}

func newSession() []byte {
	s := make([]byte, sessionBytes)
	_, _ = rand.Read(s) // never fails
	return s
}

// lasting makes the stream of a transfer one that outlives its connections.
func (t *transfer) lasting(s gossip.Stream) *resume.Link {
	return resume.New(s, resume.Config{Within: t.node.cfg.ResumeWithin, Dial: t.redial, Tell: t.waiting})
}

// waiting tells that the link is cut. The machine runs on, or stands still if it is
// released already.
func (t *transfer) waiting(cut, within time.Duration) {
	t.out.tell(api.Progress{Phase: "link cut, waits for " + t.node.site(t.mv.To), Waited: cut.Seconds(), Within: within.Seconds()})
}

// redial opens another stream to the destination, over any way there is, and says how far
// the transfer has come.
func (t *transfer) redial(ctx context.Context, attempt, received uint64) (resume.Stream, uint64, error) {
	n := t.node
	to := n.peer(t.mv.To)
	n.overlay.Doubt(ctx, to)
	s, err := n.overlay.Open(ctx, to, protoResume)
	if err != nil {
		return nil, 0, err
	}
	_ = s.SetDeadline(time.Now().Add(answerWithin))
	stop := context.AfterFunc(ctx, func() {
		_ = s.SetDeadline(time.Now()) // a Reset may itself wait for a connection that is dead
		_ = s.Reset()
	})
	defer stop()
	a := again{Machine: t.m.Spec.Name, Move: t.mv.ID, Epoch: t.mv.Epoch, Session: t.session, Attempt: attempt, Received: received}
	var p position
	if err = writeLine(s, a); err == nil {
		err = readLine(s, &p)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("resume at the destination: %w", err)
	case p.Over:
		err = resume.Over(p.Error)
	case p.Error != "":
		err = fmt.Errorf("the destination does not resume: %s", p.Error)
	}
	if err != nil {
		_ = s.Reset()
		return nil, 0, err
	}
	n.log.Info("the link is back", "machine", t.m.Spec.Name, "attempt", attempt)
	return s, p.Received, nil
}

// accountCuts enters what the cuts of a transfer have cost.
func (t *transfer) accountCuts(s resume.Stats) {
	t.rep.Cuts.Count += s.Cuts
	t.rep.Cuts.Seconds += s.Down.Seconds()
	t.rep.Cuts.SentTwice += s.Twice
}

// serveResume goes on with a transfer whose link was cut.
func (n *Node) serveResume(_ context.Context, s gossip.Stream) {
	_ = s.SetDeadline(time.Now().Add(reasonable))
	var a again
	if err := readLine(s, &a); err != nil {
		_ = s.Reset()
		return
	}
	link, err := n.interrupted(s.Peer(), a)
	if err == nil {
		var gone <-chan struct{}
		gone, err = link.Resume(s, a.Attempt, a.Received, func(received uint64) error {
			return writeLine(s, position{Received: received})
		})
		if err == nil {
			n.log.Info("the link is back", "machine", a.Machine, "attempt", a.Attempt)
			<-gone // the stream ends with this handler
			return
		}
	}
	n.log.Info("a transfer is not resumed", "machine", a.Machine, "cause", err)
	_ = writeLine(s, position{Error: reason(err), Over: errors.Is(err, resume.ErrOver)})
}

// interrupted is the link of the transfer that a source speaks of.
func (n *Node) interrupted(from peer.ID, a again) (*resume.Link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	in := n.ins[a.Machine]
	switch {
	case in == nil || in.mv.ID != a.Move || in.mv.Epoch != a.Epoch || n.member(from) != in.mv.From,
		len(in.session) == 0 || subtle.ConstantTimeCompare(in.session, a.Session) != 1:
		return nil, resume.Over("nothing of it is at " + n.site(n.self) + " any more: the node there was started anew, or has given up")
	case in.link == nil:
		return nil, errors.New("it is still getting ready")
	}
	return in.link, nil
}

// attend has an arrival hear of those who resume it, and of the order while it receives.
func (n *Node) attend(in *incoming, l *resume.Link, stop context.CancelCauseFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	in.link, in.stop = l, stop
}
