package ordertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/node/order"
)

// Net is a network of memory: messages take as long as Delay says, by the clock of the
// process or of the synctest bubble that it is in. Members are numbered as in NewNet.
type Net struct {
	// Delay is one way. Set it before anything runs; nil: none, and a message is
	// delivered before Publish returns.
	Delay func(from, to int) time.Duration
	// Pass is asked for each published message and each receiver; false: it is lost.
	// Set it before anything runs; nil: all pass.
	Pass func(from, to int, data []byte) bool

	ids []peer.ID

	mu   sync.Mutex
	ends []*End
	cut  map[[2]int]bool
}

// End is one member's end of a Net.
type End struct {
	net *Net
	i   int

	arrived  chan peer.ID
	deliver  func(from peer.ID, data []byte) // nil: not running
	handlers map[string]handler
}

type handler = func(ctx context.Context, from peer.ID, req []byte) ([]byte, error)

var _ order.Overlay = (*End)(nil)

// NewNet makes a network of the given members.
func NewNet(ids []peer.ID) *Net {
	return &Net{ids: ids, ends: make([]*End, len(ids)), cut: map[[2]int]bool{}}
}

// Overlay gives a member a new end of the network, as after a start.
func (n *Net) Overlay(id peer.ID) *End {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.Index(n.ids, id)
	n.ends[i] = &End{net: n, i: i, arrived: make(chan peer.ID, len(n.ids)), handlers: map[string]handler{}}
	return n.ends[i]
}

// Cut parts two members, or lets them meet again.
func (n *Net) Cut(a, b int, off bool) {
	n.mu.Lock()
	n.cut[[2]int{a, b}], n.cut[[2]int{b, a}] = off, off
	n.mu.Unlock()
	if !off {
		n.meet(a, b)
	}
}

// meet tells two members that they can reach each other.
func (n *Net) meet(a, b int) {
	if n.reach(a, b) == nil || n.reach(b, a) == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range [][2]int{{a, b}, {b, a}} {
		select {
		case n.ends[p[0]].arrived <- n.ids[p[1]]:
		default:
		}
	}
}

// reach is the running end of a member, nil if it cannot be reached from another.
func (n *Net) reach(from, to int) *End {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut[[2]int{from, to}] || n.ends[to] == nil || n.ends[to].deliver == nil {
		return nil
	}
	return n.ends[to]
}

func (n *Net) delay(from, to int) time.Duration {
	if n.Delay == nil {
		return 0
	}
	return n.Delay(from, to)
}

// Send brings data to one member as if from had published it for it alone.
func (n *Net) Send(from, to int, data []byte) {
	if n.Pass != nil && !n.Pass(from, to, data) {
		return
	}
	arrive := func() {
		if e := n.reach(from, to); e != nil {
			n.mu.Lock()
			deliver := e.deliver
			n.mu.Unlock()
			if deliver != nil {
				deliver(n.ids[from], data)
			}
		}
	}
	if d := n.delay(from, to); d > 0 {
		time.AfterFunc(d, arrive)
		return
	}
	arrive()
}

// Receive implements order.Overlay.
func (e *End) Receive(ctx context.Context, deliver func(peer.ID, []byte)) error {
	e.net.mu.Lock()
	e.deliver = deliver
	e.net.mu.Unlock()
	for i := range e.net.ids {
		if i != e.i {
			e.net.meet(e.i, i)
		}
	}
	<-ctx.Done()
	e.net.mu.Lock()
	e.deliver = nil
	e.net.mu.Unlock()
	return nil
}

// Publish implements order.Overlay.
func (e *End) Publish(_ context.Context, data []byte) error {
	for i := range e.net.ids {
		if i != e.i {
			e.net.Send(e.i, i, data)
		}
	}
	return nil
}

// Connected implements order.Overlay.
func (e *End) Connected() <-chan peer.ID { return e.arrived }

// HandleRequest implements order.Overlay.
func (e *End) HandleRequest(proto string, h func(context.Context, peer.ID, []byte) ([]byte, error)) {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	e.handlers[proto] = h
}

var errUnreachable = errors.New("unreachable")

// Request implements order.Overlay.
func (e *End) Request(ctx context.Context, to peer.ID, proto string, req []byte, most int) ([]byte, error) {
	i := slices.Index(e.net.ids, to)
	if i < 0 || !wait(ctx, e.net.delay(e.i, i)) {
		return nil, errUnreachable
	}
	far := e.net.reach(e.i, i)
	if far == nil {
		return nil, errUnreachable
	}
	e.net.mu.Lock()
	h := far.handlers[proto]
	e.net.mu.Unlock()
	if h == nil {
		return nil, fmt.Errorf("%s is not served", proto)
	}
	reply, err := h(ctx, e.net.ids[e.i], req)
	if err != nil {
		return nil, err
	}
	if !wait(ctx, e.net.delay(i, e.i)) || e.net.reach(i, e.i) == nil {
		return nil, errUnreachable
	}
	if len(reply) > most {
		return nil, fmt.Errorf("a reply of %d bytes, at most %d wanted", len(reply), most)
	}
	return reply, nil
}

func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Peers implements order.Overlay.
func (e *End) Peers() []order.Peer {
	var out []order.Peer
	for i, id := range e.net.ids {
		if i != e.i {
			out = append(out, order.Peer{ID: id, Connected: e.net.reach(e.i, i) != nil, RTT: e.net.delay(e.i, i) + e.net.delay(i, e.i)})
		}
	}
	return out
}
