package gossip

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// pair is alice and bob, connected; serve registers bob's handlers.
func (w *world) pair(serve func(bob *Overlay)) (alice, bob *Overlay) {
	w.t.Helper()
	alice = w.start("alice")
	bob = w.start("bob", serve)
	awaitConnected(w.t, alice, 1)
	return alice, bob
}

func TestRequestAndReplyAreBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var asked int
		alice, bob := w.pair(func(bob *Overlay) {
			bob.HandleRequest("/echo/1", func(_ context.Context, from peer.ID, req []byte) ([]byte, error) {
				asked++
				if from != idOf(t, "alice") {
					t.Errorf("a request from %s", from)
				}
				return append([]byte("you said "), req...), nil
			})
		})
		ask := func(size, max int) ([]byte, error) {
			return alice.Request(t.Context(), bob.ID(), "/echo/1", make([]byte, size), max)
		}
		for _, size := range []int{0, 1, MaxRequest} {
			reply, err := ask(size, size+9)
			if err != nil || len(reply) != size+9 {
				t.Errorf("a request of %d bytes: %d bytes came back, %v", size, len(reply), err)
			}
		}
		answered := asked
		if _, err := ask(MaxRequest+1, 10); !errors.Is(err, ErrTooLarge) || asked != answered {
			t.Errorf("a request over the limit: %v", err)
		}
		var said *RemoteError
		if _, err := ask(100, 108); !errors.As(err, &said) || !strings.Contains(err.Error(), "109 bytes, at most 108") {
			t.Errorf("a reply over the limit: %v", err)
		}
	})
}

func TestHandlerErrorReachesTheAsker(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		alice, bob := w.pair(func(bob *Overlay) {
			bob.HandleRequest("/fail/1", func(context.Context, peer.ID, []byte) ([]byte, error) {
				return nil, errors.New("no such round")
			})
		})
		var said *RemoteError
		_, err := alice.Request(t.Context(), bob.ID(), "/fail/1", nil, 10)
		if !errors.As(err, &said) || said.Text != "no such round" || said.Peer != bob.ID() {
			t.Errorf("Request said %v", err)
		}
		_, err = alice.Request(t.Context(), bob.ID(), "/unknown/1", nil, 10)
		if !errors.Is(err, ErrRefused) {
			t.Errorf("a protocol that bob does not serve: %v", err)
		}
	})
}

func TestOversizedClaimsAreNotBelieved(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		alice, bob := w.pair(func(bob *Overlay) {
			bob.HandleRequest("/echo/1", func(context.Context, peer.ID, []byte) ([]byte, error) {
				t.Error("the handler was asked")
				return nil, nil
			})
			bob.Handle("/liar/1", func(_ context.Context, s Stream) { // 4 GiB to come, it says
				s.Write([]byte{statusOK, 255, 255, 255, 255})
			})
		})
		s, err := alice.Open(t.Context(), bob.ID(), "/echo/1")
		if err != nil {
			t.Fatal(err)
		}
		s.Write([]byte{255, 255, 255, 255, 0, 0, 0, 9})
		reply, err := io.ReadAll(s)
		if err != nil || !bytes.Contains(reply, []byte("too large")) {
			t.Errorf("a request that claims 4 GiB: %q, %v", reply, err)
		}
		if _, err := alice.Request(t.Context(), bob.ID(), "/liar/1", nil, 100); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a reply that claims 4 GiB: %v", err)
		}
	})
}

func TestSilentPeerHoldsNobodyForever(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ended := make(chan struct{})
		alice, bob := w.pair(func(bob *Overlay) {
			bob.HandleRequest("/slow/1", func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) {
				<-ctx.Done()
				close(ended)
				return nil, ctx.Err()
			})
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := alice.Request(ctx, bob.ID(), "/slow/1", nil, 10)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 4*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		<-ended
		if took := time.Since(begin); took > handleTimeout+time.Second {
			t.Errorf("the handler was let run for %v", took)
		}
	})
}

func TestStreamCarriesBothWaysAndEndsWithTheOverlay(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		reset := make(chan error, 1)
		alice, bob := w.pair(func(bob *Overlay) {
			bob.Handle("/copy/1", func(_ context.Context, s Stream) { io.Copy(s, s) })
			bob.Handle("/hold/1", func(ctx context.Context, s Stream) {
				<-ctx.Done()
			})
		})
		s, err := alice.Open(t.Context(), bob.ID(), "/copy/1")
		if err != nil {
			t.Fatal(err)
		}
		sent := bytes.Repeat([]byte("page"), 1<<18)
		go func() {
			s.Write(sent)
			s.CloseWrite()
		}()
		if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
		}
		if s.Peer() != bob.ID() {
			t.Errorf("the stream says it leads to %s", s.Peer())
		}
		s.Close()

		hold, err := alice.Open(t.Context(), bob.ID(), "/hold/1")
		if err != nil {
			t.Fatal(err)
		}
		hold.Write([]byte("x"))
		go func() {
			_, err := io.ReadAll(hold)
			reset <- err
		}()
		time.Sleep(time.Second)
		if err := bob.Close(); err != nil {
			t.Errorf("Close with an open stream: %v", err)
		}
		if err := <-reset; err == nil {
			t.Error("the stream ended as if it were complete")
		}
	})
}
