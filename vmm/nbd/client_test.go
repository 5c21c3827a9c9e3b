package nbd

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

// content is 12 MiB that look like nothing else.
func content() []byte {
	b := make([]byte, 12*mib)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

func open(t *testing.T, f *fake, contexts ...string) *Client {
	t.Helper()
	f.t = t
	if f.data == nil {
		f.data = content()
	}
	if f.flags == 0 {
		f.flags = allFlags
	}
	if f.block == 0 {
		f.block = 512
	}
	dial := f.serve()
	c, err := Open(t.Context(), Config{Dial: dial, Export: "disk0", Contexts: contexts, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestLongTransfersArriveWhole(t *testing.T) {
	want := content()
	c := open(t, &fake{})
	got := make([]byte, len(want)-512)
	if err := c.ReadAt(t.Context(), got, 512); err != nil || !bytes.Equal(got, want[512:]) {
		t.Fatalf("read: %v", err)
	}
	if err := c.WriteAt(t.Context(), want[:10*mib], 2*mib); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteZeroes(t.Context(), 0, mib, true); err != nil {
		t.Fatal(err)
	}
	if err := c.Trim(t.Context(), mib, mib); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got = make([]byte, 12*mib)
	if err := c.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	if !isZero(got[:2*mib]) || !bytes.Equal(got[2*mib:], want[:10*mib]) {
		t.Error("the disk is not what was written")
	}
}

func isZero(p []byte) bool { return len(bytes.Trim(p, "\x00")) == 0 }

func TestConcurrentReadsDoNotMix(t *testing.T) {
	f := &fake{}
	c := open(t, f)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			p := make([]byte, 4096)
			off := int64(i) * 100 * 1024
			if err := c.ReadAt(t.Context(), p, off); err != nil || !bytes.Equal(p, f.data[off:off+4096]) {
				t.Errorf("read at %d: %v", off, err)
			}
		})
	}
	wg.Wait()
}

func TestNoHoleFlagIsSentWhenAsked(t *testing.T) {
	seen := make(chan uint16, 2)
	f := &fake{answer: func(_ *session, q ask) bool {
		if q.cmd == cmdWriteZeroes {
			seen <- q.flags
		}
		return false
	}}
	c := open(t, f)
	for _, noHole := range []bool{true, false} {
		if err := c.WriteZeroes(t.Context(), 0, 4096, noHole); err != nil {
			t.Fatal(err)
		}
		if got := <-seen&cmdFlagNoHole != 0; got != noHole {
			t.Errorf("NO_HOLE is %v, want %v", got, noHole)
		}
	}
}

func TestBlockStatusJoinsWhatTheServerTellsInPieces(t *testing.T) {
	f := &fake{status: func() []Segment {
		return []Segment{{0, mib, 0}, {mib, mib, 0}, {2 * mib, 3 * mib, 3}, {5 * mib, 20 * mib, 1}}
	}}
	c := open(t, f, Allocation)
	got, err := c.BlockStatus(t.Context(), Allocation, 512, 12*mib-512)
	want := []Segment{{512, 2*mib - 512, 0}, {2 * mib, 3 * mib, 3}, {5 * mib, 7 * mib, 1}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if _, err := c.BlockStatus(t.Context(), Depth, 0, mib); err == nil {
		t.Error("status of a context that was not negotiated")
	}
}

func TestContextThatIsNotOfferedIsRefused(t *testing.T) {
	f := &fake{t: t, data: make([]byte, mib), flags: allFlags, block: 1, skip: map[uint32]bool{1: true}}
	_, err := Open(t.Context(), Config{Dial: f.serve(), Contexts: []string{Allocation, DirtyBitmap("b0")}})
	if err == nil || !strings.Contains(err.Error(), `does not offer "qemu:dirty-bitmap:b0"`) {
		t.Fatalf("got %v", err)
	}
}

func TestRequestsOutsideTheExportAreNotSent(t *testing.T) {
	f := &fake{answer: func(_ *session, q ask) bool {
		if q.cmd != cmdDisconnect {
			t.Errorf("request %d was sent", q.cmd)
		}
		return false
	}}
	c := open(t, f)
	p := make([]byte, 4096)
	for _, off := range []int64{-512, 12*mib - 512, 1 << 62, 1} {
		if c.ReadAt(t.Context(), p, off) == nil || c.WriteAt(t.Context(), p, off) == nil ||
			c.WriteZeroes(t.Context(), off, 4096, false) == nil || c.Trim(t.Context(), off, 4096) == nil {
			t.Errorf("request at %d was accepted", off)
		}
	}
}

func TestReadOnlyExportTakesNoWrites(t *testing.T) {
	c := open(t, &fake{flags: allFlags | ReadOnly})
	if err := c.WriteAt(t.Context(), make([]byte, 512), 0); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Fatalf("got %v", err)
	}
}

func TestRefusalLeavesTheConnectionUsable(t *testing.T) {
	f := &fake{}
	f.answer = func(s *session, q ask) bool {
		switch {
		case q.cmd == cmdRead && q.off == 4096:
			s.chunk(q, 0, chunkErrorBit|1, uint32(syscall.EIO), uint16(8), "bad disk")
			s.chunk(q, chunkDone, chunkNone)
		case q.cmd == cmdWrite:
			s.say(uint32(magicSimple), uint32(syscall.ENOSPC), q.id)
		default:
			return false
		}
		return true
	}
	c := open(t, f)
	p := make([]byte, 512)
	var e *Error
	if err := c.ReadAt(t.Context(), p, 4096); !errors.As(err, &e) || e.Text != "bad disk" || !errors.Is(err, syscall.EIO) {
		t.Errorf("read: %v", err)
	}
	if err := c.WriteAt(t.Context(), p, 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	if err := c.ReadAt(t.Context(), p, 0); err != nil {
		t.Errorf("read after refusals: %v", err)
	}
}

func TestLyingServerLosesTheConnection(t *testing.T) {
	for name, lie := range map[string]func(s *session, q ask){
		"outside the request": func(s *session, q ask) { s.chunk(q, chunkDone, chunkData, uint64(q.off+1), make([]byte, q.n)) },
		"before the request":  func(s *session, q ask) { s.chunk(q, chunkDone, chunkHole, uint64(0), q.n) },
		"twice": func(s *session, q ask) {
			s.chunk(q, 0, chunkHole, uint64(q.off), q.n)
			s.chunk(q, chunkDone, chunkHole, uint64(q.off), q.n)
		},
		"too little":    func(s *session, q ask) { s.chunk(q, chunkDone, chunkHole, uint64(q.off), q.n-1) },
		"nothing":       func(s *session, q ask) { s.chunk(q, chunkDone, chunkNone) },
		"stranger's id": func(s *session, q ask) { q.id++; s.chunk(q, chunkDone, chunkNone) },
		"simple":        func(s *session, q ask) { s.say(uint32(magicSimple), uint32(0), q.id, make([]byte, q.n)) },
		"status":        func(s *session, q ask) { s.chunk(q, chunkDone, chunkStatus, uint32(7), q.n, uint32(0)) },
		"wrong magic":   func(s *session, q ask) { s.say(uint32(42), make([]byte, 64)) },
		"huge error": func(s *session, q ask) {
			s.say(uint32(magicStruct), uint16(1), uint16(chunkErrorBit|1), q.id, uint32(1<<31))
		},
		"long text":  func(s *session, q ask) { s.chunk(q, chunkDone, chunkErrorBit|1, uint32(5), uint16(9), "short") },
		"empty data": func(s *session, q ask) { s.chunk(q, 0, chunkData, uint64(q.off)) },
		"cut": func(s *session, q ask) {
			s.say(uint32(magicStruct), uint16(1))
			s.w.(interface{ Close() error }).Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{answer: func(s *session, q ask) bool {
				if q.cmd == cmdRead {
					lie(s, q)
				}
				return q.cmd == cmdRead
			}}
			c := open(t, f)
			err := c.ReadAt(t.Context(), make([]byte, 4096), 8192)
			if err == nil || !strings.Contains(err.Error(), "connection lost") {
				t.Fatalf("got %v", err)
			}
			if c.Err() == nil {
				t.Error("a request came back lost from a connection that says it lives")
			}
			<-c.Done()
			if err := c.Flush(t.Context()); err == nil {
				t.Error("the connection is still used")
			}
		})
	}
}

func TestLyingStatusLosesTheConnection(t *testing.T) {
	for name, b := range map[string][]byte{
		"no length":       be(uint32(7), uint32(0), uint32(0)),
		"unknown context": be(uint32(8), uint32(4096), uint32(0)),
		"past the end":    be(uint32(7), uint32(mib), uint32(0), uint32(mib), uint32(1)),
		"not whole":       be(uint32(7), uint32(mib), uint32(0), uint16(1)),
		"odd length":      be(uint32(7), uint32(1), uint32(0)),
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{answer: func(s *session, q ask) bool {
				if q.cmd == cmdBlockStatus {
					s.chunk(q, chunkDone, chunkStatus, b)
				}
				return q.cmd == cmdBlockStatus
			}}
			c := open(t, f, Allocation)
			if segs, err := c.BlockStatus(t.Context(), Allocation, 0, mib); err == nil {
				t.Fatalf("believed %v", segs)
			}
		})
	}
}

func TestSilentServerFailsAtTheDeadline(t *testing.T) {
	f := &fake{answer: func(_ *session, q ask) bool { return q.cmd == cmdRead }}
	c := open(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { // a request of another suffers with it, and says why
		if err := c.ReadAt(t.Context(), make([]byte, 4096), 0); err == nil || !strings.Contains(err.Error(), "given up") {
			t.Errorf("the other read: %v", err)
		}
	})
	if err := c.ReadAt(ctx, make([]byte, 4096), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	wg.Wait()
}
