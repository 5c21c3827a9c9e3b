package gossip

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// What waits for a member that is slower than what is published: three seconds
	// of a link of 10 Mbit/s. The rest is left out, and it is told to ask.
	lineQueue      = 1024    // messages
	lineQueueBytes = 4 << 20 // bytes
	// lineBatch is how much of it is written at once, unless a message is longer.
	lineBatch   = 64 << 10
	lineTimeout = 30 * time.Second // to open it
	// A line that breaks is opened again at once, and then after longer and longer pauses.
	lineFirstWait = 100 * time.Millisecond
	lineLastWait  = 15 * time.Second
)

// line is the sending end.
type line struct {
	to     peer.ID
	stream network.Stream
	wake   chan struct{}

	mu    sync.Mutex
	queue [][]byte
	size  int    // bytes in queue
	gap   bool   // messages were left out after those in queue
	hears []byte // the frame of that kind that is due, nil: none
	lost  uint64 // messages that were left out, ever
}

// push queues a message. It never waits.
func (l *line) push(data []byte) {
	l.mu.Lock()
	if l.gap || len(l.queue) >= lineQueue || l.size+len(data) > lineQueueBytes {
		l.gap = true
		l.lost++
	} else {
		l.queue, l.size = append(l.queue, data), l.size+len(data)
	}
	l.mu.Unlock()
	signal(l.wake)
}

// tell queues the news of who hears us, in the place of any before it.
func (l *line) tell(hears []byte) {
	l.mu.Lock()
	l.hears = hears
	l.mu.Unlock()
	signal(l.wake)
}

// leftOut is how many messages were.
func (l *line) leftOut() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// batch appends the frames that are due to buf, about lineBatch bytes of them.
func (l *line) batch(buf []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hears != nil {
		buf = appendFrame(buf, frameHears, l.hears)
		l.hears = nil
	}
	n := 0
	for ; n < len(l.queue) && (len(buf) == 0 || len(buf)+len(l.queue[n]) <= lineBatch); n++ {
		buf = appendFrame(buf, frameMessage, l.queue[n])
		l.size -= len(l.queue[n])
		l.queue[n] = nil
	}
	if l.queue = l.queue[n:]; len(l.queue) == 0 {
		l.queue = nil
		if l.gap {
			buf, l.gap = appendFrame(buf, frameGap, nil), false
		}
	}
	return buf
}

// opened notes a connection, and starts a line unless there is one. A line through a
// relay is given up for a direct connection.
func (o *Overlay) opened(c network.Conn) {
	p := c.RemotePeer()
	o.mu.Lock()
	defer o.mu.Unlock()
	k := o.link(p)
	switch {
	case o.closed:
	case !k.lining:
		k.lining = true
		o.handlers.Go(func() { o.keepLine(p, k.again) })
	default:
		signal(k.again)
		if l := k.line; l != nil && isRelayed(l.stream.Conn().RemoteMultiaddr()) && !isRelayed(c.RemoteMultiaddr()) {
			go l.stream.Reset()
		}
	}
}

// keepLine keeps a line to p for as long as it is connected.
func (o *Overlay) keepLine(p peer.ID, again <-chan struct{}) {
	ctx, cancel := o.handlerContext()
	defer cancel()
	for wait := time.Duration(0); ; wait = min(max(2*wait, lineFirstWait), lineLastWait) {
		begin := time.Now()
		err := o.holdLine(ctx, p)
		o.mu.Lock()
		if ctx.Err() != nil || !o.isConnected(p) {
			o.link(p).lining = false
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		o.log.Debug("the line to a member ended, opening another", "peer", p, "err", err)
		if time.Since(begin) > lineLastWait {
			wait = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-again:
			wait = 0
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// holdLine opens a line to p and sends on it until it breaks.
func (o *Overlay) holdLine(ctx context.Context, p peer.ID) error {
	octx, cancel := context.WithTimeout(network.WithNoDial(ctx, "line"), lineTimeout)
	defer cancel()
	s, err := o.host.NewStream(octx, p, o.protocol(protoLine))
	if err != nil {
		return err
	}
	defer s.Reset()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	l := o.addLine(p, s)
	defer o.dropLine(l)
	o.handlers.Go(func() { // ends when the stream does
		var taken [1]byte
		for {
			n, err := s.Read(taken[:])
			if n > 0 {
				o.heard(l)
			}
			if err != nil {
				stop(err)
				return
			}
		}
	})
	var buf []byte
	for {
		if buf = l.batch(buf[:0]); len(buf) > 0 {
			if _, err := s.Write(buf); err != nil {
				return err
			}
			if cap(buf) > 2*lineBatch {
				buf = nil
			}
			continue
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
