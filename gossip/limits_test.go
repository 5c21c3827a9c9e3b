package gossip_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/gossip/gossiptest"
)

// watched has all members log to one place and keep to limits.
func watched(log *bytes.Buffer, limits gossip.Limits, prepare func(i int, o *gossip.Overlay)) gossiptest.Options {
	handler := slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}) // it has a lock
	return gossiptest.Options{
		Configure: func(i int, cfg *gossip.Config) {
			cfg.Limits = limits
			cfg.Log = slog.New(handler).With("at", i)
			cfg.Validate = func(_ peer.ID, data []byte) bool { return !bytes.HasPrefix(data, []byte("bad")) }
		},
		Prepare: prepare,
	}
}

// warnings counts the lines of the log about a member.
func warnings(log *bytes.Buffer, about peer.ID, reason string) (n int) {
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, about.String()) && strings.Contains(line, reason) {
			n++
		}
	}
	return n
}

func TestFloodingMemberIsMutedNamedAndForgiven(t *testing.T) {
	var log bytes.Buffer
	opts := watched(&log, gossip.Limits{Messages: 100}, nil)
	inMesh(t, 4, opts, func(t *testing.T, mesh *gossiptest.Mesh) {
		for i := range 1000 {
			publish(t, mesh.Overlay(0), fmt.Sprint("flood ", i))
		}
		time.Sleep(time.Second)
		for _, i := range []int{1, 2, 3} {
			if got := len(heard(mesh.Overlay(i), time.Millisecond)); got > 200 {
				t.Errorf("%d let %d messages of a burst pass, wanted 200 at most", i, got)
			}
			p := state(mesh, i, 0)
			if !p.MutedUntil.After(time.Now()) || p.Dropped == 0 || p.Reason == "" || !p.Connected {
				t.Errorf("%d says of the flooder %+v", i, p)
			}
		}
		publish(t, mesh.Overlay(0), "muted")
		publish(t, mesh.Overlay(1), "from another")
		for _, i := range []int{2, 3} {
			if got := heard(mesh.Overlay(i), time.Second); len(got) != 1 || got[0] != "from another" {
				t.Errorf("while 0 is muted %d hears %q", i, got)
			}
		}
		drain(mesh.Overlay(2))
		if !named(mesh.Overlay(2), mesh.ID(0), time.Minute) {
			t.Error("nobody is told that the mute is over")
		}
		publish(t, mesh.Overlay(0), "back")
		if got := heard(mesh.Overlay(2), time.Second); len(got) != 1 || got[0] != "back" {
			t.Errorf("after the mute %q came", got)
		}
		if n := warnings(&log, mesh.ID(0), "more messages than the limit"); n != 3 {
			t.Errorf("three members warned %d times: %s", n, &log)
		}
	})
}

func TestMemberWithInvalidMessagesIsMuted(t *testing.T) {
	var log bytes.Buffer
	opts := watched(&log, gossip.Limits{Invalid: 10}, nil)
	inMesh(t, 3, opts, func(t *testing.T, mesh *gossiptest.Mesh) {
		for i := range 10 {
			publish(t, mesh.Overlay(0), fmt.Sprint("bad ", i))
		}
		publish(t, mesh.Overlay(0), "good")
		if got := heard(mesh.Overlay(1), time.Second); len(got) != 1 || got[0] != "good" {
			t.Errorf("after as many invalid messages as are forgiven: %q", got)
		}
		for i := range 10 {
			publish(t, mesh.Overlay(0), fmt.Sprint("bad again ", i))
		}
		publish(t, mesh.Overlay(0), "good again")
		if got := heard(mesh.Overlay(1), time.Second); len(got) != 0 {
			t.Errorf("of a member that is muted: %q", got)
		}
		if p := state(mesh, 1, 0); p.Invalid != 11 || !p.MutedUntil.After(time.Now()) || p.Reason != "its messages are invalid" {
			t.Errorf("1 says of 0: %+v", p)
		}
		if p := state(mesh, 1, 2); p.Invalid != 0 || !p.MutedUntil.IsZero() || p.Reason != "" {
			t.Errorf("1 says of 2, who did nothing: %+v", p)
		}
		if n := warnings(&log, mesh.ID(0), "invalid"); n != 2 {
			t.Errorf("two members warned %d times: %s", n, &log)
		}
		for range 11 { // what the reader finds counts as well
			mesh.Overlay(2).Blame(mesh.ID(1), "its signatures are wrong")
		}
		if n := warnings(&log, mesh.ID(1), "its signatures are wrong"); n != 1 {
			t.Errorf("the reader's verdict was logged %d times: %s", n, &log)
		}
		heard(mesh.Overlay(2), time.Second)
		publish(t, mesh.Overlay(1), "unheard")
		if got := heard(mesh.Overlay(2), time.Second); len(got) != 0 {
			t.Errorf("of a member that the reader blames: %q", got)
		}
	})
}

func TestRequestsOfOneMemberAreBoundedInNumber(t *testing.T) {
	var log bytes.Buffer
	release := make(chan struct{})
	opts := watched(&log, gossip.Limits{Concurrent: 5}, func(_ int, o *gossip.Overlay) {
		o.HandleRequest("/slow/1", func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) {
			<-release
			return []byte("done"), nil
		})
	})
	synctestChan(t, &release, 3, opts, func(t *testing.T, mesh *gossiptest.Mesh) {
		answers := make(chan error, 10)
		ask := func(from int) error {
			_, err := mesh.Overlay(from).Request(t.Context(), mesh.ID(2), "/slow/1", nil, 10)
			return err
		}
		for range 8 {
			go func() { answers <- ask(0) }()
		}
		time.Sleep(time.Second)
		for range 3 {
			if err := <-answers; err == nil {
				t.Error("a request over the limit was answered")
			}
		}
		go func() { answers <- ask(1) }() // another member has its own limit
		time.Sleep(time.Second)
		close(release)
		for range 6 {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if p := state(mesh, 2, 0); p.Dropped != 3 || !p.MutedUntil.IsZero() {
			t.Errorf("2 says of 0: %+v", p)
		}
	})
}

// synctestChan makes the channel inside the bubble, where it belongs.
func synctestChan(t *testing.T, c *chan struct{}, n int, opts gossiptest.Options, f func(*testing.T, *gossiptest.Mesh)) {
	prepare := opts.Prepare
	opts.Prepare = func(i int, o *gossip.Overlay) {
		if i == 0 {
			*c = make(chan struct{})
		}
		prepare(i, o)
	}
	inMesh(t, n, opts, f)
}

func TestMemberThatAsksTooOftenIsNotAnsweredForAWhile(t *testing.T) {
	var log bytes.Buffer
	opts := watched(&log, gossip.Limits{Requests: 10, RequestBytes: 4 << 20}, func(_ int, o *gossip.Overlay) {
		o.HandleRequest("/echo/1", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req[:1], nil })
	})
	inMesh(t, 3, opts, func(t *testing.T, mesh *gossiptest.Mesh) {
		ask := func(from, size int) error {
			_, err := mesh.Overlay(from).Request(t.Context(), mesh.ID(2), "/echo/1", make([]byte, size), 10)
			return err
		}
		answered := 0
		for ask(0, 1) == nil && answered < 100 { // one takes two delays: 25 a second
			answered++
		}
		if answered < 20 || answered > 60 {
			t.Errorf("%d of 100 requests were answered, wanted 20 at once and 10 a second for 1.3 s", answered)
		}
		p := state(mesh, 2, 0)
		if p.Reason != "it asks more than the limit" || p.Dropped != 1 || !p.Connected || ask(0, 1) == nil {
			t.Errorf("2 says of 0: %+v", p)
		}
		if err := ask(1, 1); err != nil {
			t.Errorf("another member asked: %v", err)
		}
		publish(t, mesh.Overlay(0), "not muted")
		if got := heard(mesh.Overlay(2), time.Second); len(got) != 1 {
			t.Errorf("what it publishes is no longer heard: %q", got)
		}
		for range 20 { // it does not stop
			if ask(0, 1) == nil {
				t.Error("a member that is muted was answered")
			}
		}
		time.Sleep(time.Second)
		if p := state(mesh, 2, 0); p.Connected || p.Reason != "it goes on although it is muted" {
			t.Errorf("2 says of 0: %+v", p)
		}
		time.Sleep(time.Minute)
		if err := ask(0, 1); err != nil || !state(mesh, 2, 0).Connected {
			t.Errorf("a minute later: %v, %+v", err, state(mesh, 2, 0))
		}
		for range 20 { // in bytes: 8 MiB at once, and 4 a second
			err := ask(1, gossip.MaxRequest)
			if errors.As(err, new(*gossip.RemoteError)) {
				t.Errorf("a large request: %v", err)
			}
		}
		if state(mesh, 2, 1).Dropped == 0 {
			t.Errorf("20 MiB of requests were let pass: %+v", state(mesh, 2, 1))
		}
	})
}
