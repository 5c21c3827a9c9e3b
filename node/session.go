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
	"github.com/dcnode/dcnode/vmm"
)

// protoMigrate carries one migration: the source's hello, the destination's
// progress and its ready, then the streams of package migrate.
const protoMigrate = "/migrate/1"

// outgoing is a migration away from here, from the intent to its end.
type outgoing struct {
	machine string
	effects chan ledger.Effect // what the order says of it

	watching sync.Mutex // not mu: a watcher may be slow, and the order must not wait for it
	watch    api.Tell

	mu     sync.Mutex
	move   uint64                  // of the transfer
	cancel context.CancelCauseFunc // of the transfer, while there is one
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
}

func newIncoming(mv ledger.Move) *incoming {
	return &incoming{mv: mv, effects: make(chan ledger.Effect, maxEffects)}
}

// A move has at most a handful of effects; none may ever be lost.
const maxEffects = 16

// tell passes progress on to whoever watches.
func (o *outgoing) tell(p api.Progress) {
	o.watching.Lock()
	defer o.watching.Unlock()
	if o.watch != nil {
		o.watch(p)
	}
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
	if o != nil && e.Move.From == n.self {
		o.effects <- e
		if e.Kind == ledger.KindAbort && o.carries(e.Move.ID) {
			o.stop(&abortedError{e.Move.Reason})
		}
	}
	mine := in != nil && in.mv.ID == e.Move.ID
	if mine {
		in.effects <- e
		if e.Kind == ledger.KindAbort && in.cancel != nil {
			in.cancel(&abortedError{e.Move.Reason})
		}
	}
	switch {
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
	Machine string   `json:"machine"`
	Move    uint64   `json:"move"`
	Epoch   uint64   `json:"epoch"`
	Commit  string   `json:"commit"`
	Spec    vmm.Spec `json:"spec"`
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
