package gossip

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Stream is a two-way flow of bytes to one member, with back-pressure. It shares the
// connection with others, and is lost with it: whoever moves much must resume.
type Stream interface {
	io.ReadWriteCloser // Close ends both directions; what was written still arrives
	CloseWrite() error // the far side reads to the end
	Reset() error      // drop everything, at both ends
	Peer() peer.ID     // the far side
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// openTimeout bounds Open for a caller without a deadline.
const openTimeout = 30 * time.Second

// stream is a network.Stream that says in words why it was refused.
type stream struct{ network.Stream }

func (s stream) Peer() peer.ID { return s.Conn().RemotePeer() }

func (s stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	return n, s.explain(err)
}

func (s stream) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	return n, s.explain(err)
}

func (s stream) explain(err error) error {
	if err != nil && isGated(err) {
		return refusedBy(s.Peer())
	}
	return err
}

func (o *Overlay) protocol(proto string) protocol.ID { return o.cfg.prefix() + protocol.ID(proto) }

// Handle serves a protocol, "/sync/1" say, to members. h has the stream until it
// returns; then it is closed. ctx ends, and the stream is reset, when the overlay is
// closed. h sets its own deadlines. Register before Run.
func (o *Overlay) Handle(proto string, h func(ctx context.Context, s Stream)) {
	o.host.SetStreamHandler(o.protocol(proto), func(s network.Stream) {
		if !o.cfg.Allow(s.Conn().RemotePeer()) || !o.enter() {
			s.ResetWithError(network.StreamGated)
			return
		}
		defer o.handlers.Done()
		ctx, cancel := o.handlerContext()
		defer cancel()
		stop := context.AfterFunc(ctx, func() { s.Reset() })
		defer stop()
		h(ctx, stream{s})
		s.Close()
	})
}

// enter counts a handler in, unless the overlay is closed.
func (o *Overlay) enter() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.handlers.Add(1)
	return true
}

// Open starts a stream to a member, connecting first if need be. ctx bounds the
// opening, 30 s if it has no deadline, and not what follows. The error wraps
// [ErrUnreachable] or [ErrRefused].
func (o *Overlay) Open(ctx context.Context, to peer.ID, proto string) (Stream, error) {
	ctx, cancel := withTimeout(ctx, openTimeout)
	defer cancel()
	var err error
	for range 2 { // a connection may turn out to be dead
		if !o.isConnected(to) {
			if _, err = o.dial(ctx, to); err != nil {
				return nil, err
			}
		}
		var s network.Stream
		s, err = o.host.NewStream(network.WithNoDial(ctx, "open"), to, o.protocol(proto))
		if err == nil {
			return stream{s}, nil
		}
		if o.isConnected(to) || ctx.Err() != nil {
			break
		}
	}
	kind := ErrUnreachable
	if isGated(err) || o.isConnected(to) && ctx.Err() == nil {
		kind = ErrRefused // the protocol is not served there, or too many streams are open
	}
	return nil, fmt.Errorf("open %s to %s: %w: %w", proto, to, kind, err)
}

func withTimeout(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}
