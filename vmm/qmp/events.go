package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// eventQueue is how many events Events keeps for one who is slow.
const eventQueue = 256

// Subscription is one reader's queue of events.
type Subscription struct {
	c       *Client
	queue   chan Event
	dropped atomic.Uint64
}

// Subscribe queues events from now on, at most n. The channel of the subscription
// is closed when the connection ends; close the subscription when done with it.
func (c *Client) Subscribe(n int) (*Subscription, error) {
	if n < 1 {
		return nil, fmt.Errorf("subscribe to events: a queue of %d holds nothing", n)
	}
	s := &Subscription{c: c, queue: make(chan Event, n)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs == nil || c.err != nil {
		return nil, fmt.Errorf("subscribe to events: %w", errors.Join(c.err))
	}
	c.subs[s] = struct{}{}
	return s, nil
}

// C delivers the events.
func (s *Subscription) C() <-chan Event { return s.queue }

// Dropped is how many events were lost, oldest first, because nobody read them.
func (s *Subscription) Dropped() uint64 { return s.dropped.Load() }

// Close ends the subscription and its channel.
func (s *Subscription) Close() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if _, ok := s.c.subs[s]; ok {
		delete(s.c.subs, s)
		close(s.queue)
	}
}

// push never blocks; the client's lock is held.
func (s *Subscription) push(e Event) {
	for {
		select {
		case s.queue <- e:
			return
		default:
		}
		select {
		case <-s.queue:
			s.dropped.Add(1)
		default:
		}
	}
}

// Events is [Client.Subscribe] as go-qemu's Monitor has it. The channel is closed
// when ctx ends, or when the connection has ended and its last event was read.
func (c *Client) Events(ctx context.Context) (<-chan goqemu.Event, error) {
	s, err := c.Subscribe(eventQueue)
	if err != nil {
		return nil, err
	}
	out := make(chan goqemu.Event)
	go func() {
		defer close(out)
		defer s.Close()
		for {
			var e Event
			var ok bool
			select {
			case e, ok = <-s.queue:
			case <-ctx.Done():
			}
			if !ok {
				return
			}
			select {
			case out <- e.plain():
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (e Event) plain() goqemu.Event {
	g := goqemu.Event{Event: e.Name}
	if len(e.Data) > 0 {
		_ = json.Unmarshal(e.Data, &g.Data) // data that is no object stays nil
	}
	g.Timestamp.Seconds = e.Time.Unix()
	g.Timestamp.Microseconds = int64(e.Time.Nanosecond() / 1000)
	return g
}
