package node

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/node/resume"
	"github.com/dcnode/dcnode/vmm"
)

// protoMigrate carries one migration: the source's hello, the destination's
// progress and its ready, then the streams of package migrate over those of package
// resume.
const protoMigrate = "/migrate/2"

// outgoing is a migration away from here, from the intent to its end.
type outgoing struct {
	machine string
	effects chan ledger.Effect // what the order says of it

	watching sync.Mutex // not mu: a watcher may be slow, and the order must not wait for it
	watch    api.Tell

	mu     sync.Mutex
	move   uint64                  // of the transfer
	cancel context.CancelCauseFunc // of the transfer, while there is one
	last   api.Progress            // what was told last
	lastAt time.Time               // when; zero: nothing was yet
	said   bool                    // its release is being said: only the order can end the move
	off    error                   // why it is called off; nil: it is not
}

func newOutgoing(machine string, watch api.Tell) *outgoing {
	return &outgoing{machine: machine, watch: watch, effects: make(chan ledger.Effect, maxEffects)}
}

// incoming is a migration to here.
type incoming struct {
	mv      ledger.Move
	effects chan ledger.Effect
	cancel  context.CancelCauseFunc // of the arrival; nil after a restart
	ready   time.Time               // before the source could release it; zero after a restart
	session []byte                  // the secret that the source has given
	link    *resume.Link            // guarded by the node's lock; nil until it is ready
	stop    context.CancelCauseFunc // guarded by the node's lock; of the receiving, as long as that goes on
}

func newIncoming(mv ledger.Move) *incoming {
	return &incoming{mv: mv, effects: make(chan ledger.Effect, maxEffects)}
}

// maxEffects is more than a move has effects, of the kinds that a session hears: it is
// selected anew at most once for each member. None may ever be lost.
const maxEffects = 2*ledger.MaxMembers + 16

// heard says whether a session hears of an effect.
func heard(k ledger.Kind) bool {
	return k != ledger.KindBid && k != ledger.KindBeat && k != ledger.KindReport
}

// settles says whether the order has said whose a released machine is. What is still on
// its way then comes too late.
func settles(k ledger.Kind) bool {
	return k == ledger.KindConfirm || k == ledger.KindDecline || k == ledger.KindReclaim
}

var errSettled = errors.New("the order has decided whose the machine is")

// tell passes progress on to whoever watches, and keeps it for whoever asks.
func (o *outgoing) tell(p api.Progress) {
	o.mu.Lock()
	o.last, o.lastAt = p, time.Now()
	o.mu.Unlock()
	o.watching.Lock()
	defer o.watching.Unlock()
	if o.watch != nil {
		o.watch(p)
	}
}

// told is what was told last, and when.
func (o *outgoing) told() (api.Progress, time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last, o.lastAt
}

// unwatch: whoever watched has gone.
func (o *outgoing) unwatch() {
	o.watching.Lock()
	defer o.watching.Unlock()
	o.watch = nil
}

// abortedError: the order says that the move is over.
type abortedError struct{ reason string }

func (e *abortedError) Error() string { return "aborted: " + e.reason }

// reselectedError: the destination has not kept its word in time, and the ledger has
// selected the next best.
type reselectedError struct{ site string }

func (e *reselectedError) Error() string {
	return "the destination did not accept in time: " + e.site + " is selected instead"
}

// stop ends the transfer, if there is one.
func (o *outgoing) stop(cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cancel != nil {
		o.cancel(cause)
	}
}

// stoppable makes a context that stop ends.
func (o *outgoing) stoppable(ctx context.Context, move uint64) (context.Context, context.CancelFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.move = move
	ctx, o.cancel = context.WithCancelCause(ctx)
	return ctx, func() { o.stop(nil) }
}

// carries says whether this session's transfer is of that move.
func (o *outgoing) carries(move uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cancel != nil && o.move == move
}

// react is called by the ordering loop for each effect; it never blocks.
func (n *Node) react(e ledger.Effect) {
	n.log.Info("ordered", "kind", e.Kind, "machine", e.Machine, "image", e.Image, "from", n.site(e.Move.From), "to", n.site(e.Move.To))
	n.mu.Lock() // held while the effects go to their session, so that none goes to one that has given up
	defer n.mu.Unlock()
	o, in := n.outs[e.Machine], n.ins[e.Machine]
	ends := e.Kind == ledger.KindAbort || e.Kind == ledger.KindNowhere
	if o != nil && e.Move.From == n.self && heard(e.Kind) {
		again := o.carries(e.Move.ID) // asked before the session hears of it: it begins at once
		o.effects <- e
		switch {
		case ends && o.carries(e.Move.ID):
			o.stop(&abortedError{e.Move.Reason})
		case e.Kind == ledger.KindSelected && again:
			o.stop(&reselectedError{n.site(e.Move.To)})
		case settles(e.Kind) && again:
			o.stop(errSettled)
		}
	}
	mine := in != nil && in.mv.ID == e.Move.ID
	if mine && heard(e.Kind) {
		in.effects <- e
		switch {
		case ends && in.cancel != nil:
			in.cancel(&abortedError{e.Move.Reason})
		case e.Kind == ledger.KindSelected && e.Move.To != n.self && in.cancel != nil:
			in.cancel(&abortedError{n.site(e.Move.To) + " was selected instead"})
		case settles(e.Kind) && in.stop != nil:
			in.stop(errSettled)
		}
	}
	switch {
	case e.Kind == ledger.KindSelected && e.Move.To == n.self:
		n.spawn(func() { n.accept(n.taskCtx, e.Move) })
	case e.Kind == ledger.KindIntent && e.Move.From != n.self && (e.Move.Only == 0 || e.Move.Only == n.self):
		n.spawn(func() { n.bid(n.taskCtx, e.Move) })
	case e.Move.From == n.self && o == nil, e.Move.To == n.self && !mine:
		n.orphan(e)
	}
}

// orphan sees to it that a move that nobody here carries comes to an end.
func (n *Node) orphan(e ledger.Effect) {
	switch {
	case e.Move.From == n.self && (e.Kind == ledger.KindIntent || e.Kind == ledger.KindSelected):
		n.submitLater(&ledger.Abort{Machine: e.Machine, Move: e.Move.ID, Reason: "nobody at " + n.site(n.self) + " waits for it any more"})
	case e.Move.To == n.self && e.Kind == ledger.KindRelease:
		n.submitLater(&ledger.Decline{Machine: e.Machine, Epoch: e.Move.Epoch + 1, Reason: "its state did not arrive whole"})
	}
}

// orphanLast does the same for the last word that a session has left unread.
func (n *Node) orphanLast(effects <-chan ledger.Effect) {
	var last ledger.Effect
	for {
		select {
		case last = <-effects:
			continue
		default:
		}
		n.orphan(last)
		return
	}
}

// await is the next effect of a move that is of one of the kinds; others, and
// those of an earlier move, are passed over.
func await(ctx context.Context, effects <-chan ledger.Effect, move uint64, kinds ...ledger.Kind) (ledger.Effect, error) {
	for {
		select {
		case e := <-effects:
			if e.Move.ID == move && slices.Contains(kinds, e.Kind) {
				return e, nil
			}
		case <-ctx.Done():
			return ledger.Effect{}, context.Cause(ctx)
		}
	}
}

// hello is what the source says first.
type hello struct {
	Machine  string   `json:"machine"`
	Move     uint64   `json:"move"`
	Selected uint64   `json:"selected"` // index of the selection: a move may have several
	Epoch    uint64   `json:"epoch"`
	Commit   string   `json:"commit"`
	Session  []byte   `json:"session"` // a secret by which the transfer is resumed
	Spec     vmm.Spec `json:"spec"`
}

// answer is a line of the destination's reply to hello: progress while it gets
// ready, then ready or an error.
type answer struct {
	Progress *api.Progress `json:"progress,omitempty"`
	Ready    bool          `json:"ready,omitempty"`
	Sent     int64         `json:"sent,omitempty"` // with Ready: bytes of the image that came over the network
	Error    string        `json:"error,omitempty"`
}

const maxLine = 64 << 10

// writeLine and readLine carry one JSON value behind its length: nothing past it
// is read, since other bytes follow on the stream.
func writeLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readLine(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxLine {
		return errors.New("line is too long")
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}
