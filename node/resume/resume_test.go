package resume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestEveryByteArrivesOnceAndInOrderThroughAnyCuts(t *testing.T) {
	const limit = 64 << 10
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			var budgets [][2]int
			for range 12 {
				budgets = append(budgets, [2]int{rng.IntN(1 << (8 + rng.IntN(12))), rng.IntN(1 << (8 + rng.IntN(12)))})
			}
			p := newPair(t, limit, Config{}, Config{}, budgets...)
			p.refuse = rng.IntN(4)
			p.exchange(t, seed, 3<<20, 1<<20)
			s, r := p.a.Stats(), p.b.Stats()
			// What is sent twice was in the connection, in the writer's hands, or read
			// and not yet acknowledged.
			most := int64(s.Cuts) * (limit + 2*chunkSize)
			if s.Cuts == 0 || s.Twice > most || r.Twice > most {
				t.Errorf("seed %d: %d cuts, %d and %d bytes sent twice, at most %d", seed, s.Cuts, s.Twice, r.Twice, most)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// Each byte of each direction is the last of the first connection, once.
func TestCutAtAnyByteIsNoLoss(t *testing.T) {
	for dir := range 2 {
		for at := range 400 {
			synctest.Test(t, func(t *testing.T) {
				budget := [2]int{-1, -1}
				budget[dir] = at
				p := newPair(t, 100, Config{}, Config{}, budget, [2]int{at / 2, -1})
				p.exchange(t, uint64(at), 700, 500)
				if p.a.Stats().Cuts == 0 {
					t.Errorf("no cut at byte %d of direction %d", at, dir)
				}
			})
			if t.Failed() {
				return
			}
		}
	}
}

func TestSilenceIsACutAndASlowReaderIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 1<<10, Config{}, Config{})
		if _, err := p.a.Write(make([]byte, 100<<10)); err != nil {
			t.Fatal(err)
		}
		go func() { // the dialer listens, as a source does
			_, _ = p.a.Read(make([]byte, 1))
		}()
		time.Sleep(10 * DefaultSilence) // b does not read: its keep-alives come all the same
		if n, _ := p.a.Cut(); n != 0 {
			t.Fatal("a reader that takes its time counts as a cut")
		}
		if _, err := io.ReadFull(p.b, make([]byte, 100<<10)); err != nil {
			t.Fatal(err)
		}
		for i := range p.wires[0].half { // from now on nothing arrives, and nobody is told
			h := &p.wires[0].half[i]
			h.mu.Lock()
			h.lost = true
			h.mu.Unlock()
		}
		if _, err := p.a.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		got := make([]byte, 5)
		if _, err := io.ReadFull(p.b, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		if took := time.Since(began); took < DefaultSilence/2 || took > 2*DefaultSilence {
			t.Errorf("silence was noticed after %v", took)
		}
		if s := p.a.Stats(); s.Cuts != 1 || s.Twice != 5 {
			t.Errorf("%+v", s)
		}
	})
}

func TestCutThatLastsTooLongEndsTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		tell := func(cut, within time.Duration) {
			if told++; cut > within || within != time.Minute {
				t.Errorf("told %v of %v", cut, within)
			}
		}
		p := newPair(t, 1<<10, Config{Within: time.Minute, Tell: tell}, Config{Within: time.Minute})
		p.down = true
		p.wires[0].cut()
		began := time.Now()
		_, err := p.a.Read(make([]byte, 1))
		if !errors.Is(err, ErrCut) || !errors.Is(err, errNoWay) || time.Since(began) > 62*time.Second || told < 30 {
			t.Errorf("%v after %v, told %d times", err, time.Since(began), told)
		}
		if _, err := p.b.Read(make([]byte, 1)); !errors.Is(err, ErrCut) {
			t.Errorf("the other side: %v", err)
		}
		if _, err := p.a.Write([]byte{1}); !errors.Is(err, ErrCut) {
			t.Errorf("write: %v", err)
		}
	})
}

// A link that is cut again before anything has come across does not begin to wait anew.
func TestCutsWithoutProgressAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var budgets [][2]int
		for range 10_000 {
			budgets = append(budgets, [2]int{3, 3})
		}
		p := newPair(t, 1<<10, Config{Within: time.Minute}, Config{Within: time.Minute}, budgets...)
		began := time.Now()
		_, _ = p.a.Write(make([]byte, 10))
		go func() { _, _ = p.b.Read(make([]byte, 1)) }()
		if _, err := p.a.Read(make([]byte, 1)); !errors.Is(err, ErrCut) && !errors.Is(err, ErrOver) {
			t.Error(err)
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("it went on for %v", took)
		}
	})
}

func TestSessionThatIsOverIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 1<<10, Config{}, Config{})
		p.b.fail(errors.New("the host has restarted"))
		began := time.Now()
		if _, err := p.a.Read(make([]byte, 1)); !errors.Is(err, ErrOver) || !strings.Contains(err.Error(), "restarted") {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestStrayAndImpossibleAttemptsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 1<<10, Config{}, Config{})
		if _, err := p.b.Write([]byte("four")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p.a, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(DefaultSilence) // the four bytes are acknowledged
		p.wires[0].cut()
		p.exchange(t, 1, 10, 10) // attempt 1
		for _, c := range []struct{ attempt, theirs uint64 }{{1, 14}, {0, 14}, {2, 3}, {2, 15}, {2, 1 << 63}} {
			_, b := newWire(1<<10, [2]int{-1, -1}).ends()
			if _, err := p.b.Resume(b, c.attempt, c.theirs, func(uint64) error { t.Error("it was answered"); return nil }); err == nil {
				t.Errorf("attempt %d from %d was taken", c.attempt, c.theirs)
			}
		}
		p.exchange(t, 2, 10, 10)
	})
}

func TestStrangeRecordsEndTheLink(t *testing.T) {
	for _, r := range [][]byte{
		appendRecord(nil, recordData, 0), appendRecord(nil, recordData, chunkSize+1), appendRecord(nil, recordData, 1<<63),
		appendRecord(nil, recordAck, 1), appendRecord(nil, 77, 0),
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWire(1<<10, [2]int{-1, -1})
			a, b := w.ends()
			l := New(b, Config{})
			if _, err := a.Write(r); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Read(make([]byte, 1)); !errors.Is(err, errStrange) {
				t.Errorf("%x: %v", r, err)
			}
			_ = l.Close()
		})
	}
}

func TestCloseLetsWhatWasWrittenLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 10, Config{}, Config{})
		words := strings.Repeat("last words ", 20)
		if _, err := p.a.Write([]byte(words)); err != nil {
			t.Fatal(err)
		}
		heard := make(chan string)
		go func() {
			b, err := io.ReadAll(p.b)
			heard <- fmt.Sprint(string(b), err)
		}()
		began := time.Now()
		_ = p.a.Close()
		if got := <-heard; got != words+"<nil>" || time.Since(began) > linger {
			t.Errorf("heard %q after %v", got, time.Since(began))
		}
		if _, err := p.b.Write([]byte{1}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("write after the end: %v", err)
		}
		if _, err := p.a.Write([]byte{1}); !errors.Is(err, errClosed) {
			t.Errorf("write after Close: %v", err)
		}
	})
}

func TestCloseDoesNotWaitForACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 1<<10, Config{}, Config{})
		p.down = true
		p.wires[0].cut()
		if _, err := p.a.Write([]byte("nobody hears this")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		_ = p.a.Close()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestDeadlineEndsWaitingAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 1<<10, Config{Keep: 1}, Config{}) // two chunks
		_ = p.a.SetDeadline(time.Now().Add(time.Second))
		if _, err := p.a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		_ = p.a.SetDeadline(time.Now().Add(time.Second))
		n, err := p.a.Write(make([]byte, 1<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n > 2*chunkSize {
			t.Errorf("write: %d, %v", n, err)
		}
		_ = p.a.SetDeadline(time.Time{})
		if _, err := io.ReadFull(p.b, make([]byte, n)); err != nil {
			t.Error(err)
		}
		go func() { _, _ = io.Copy(io.Discard, p.a) }() // takes in acknowledgements
		go func() { _, _ = p.a.Write(make([]byte, 1<<20)) }()
		if _, err := io.ReadFull(p.b, make([]byte, 1<<20)); err != nil {
			t.Error(err) // it goes on
		}
		if c, _ := p.a.Cut(); c != 0 {
			t.Errorf("%d cuts", c)
		}
	})
}

func TestDialThatHangsEndsWithTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newWire(1<<10, [2]int{-1, -1}).ends()
		l := New(a, Config{Within: 5 * time.Second, Dial: func(ctx context.Context, _, _ uint64) (Stream, uint64, error) {
			<-ctx.Done()
			return nil, 0, ctx.Err()
		}})
		_ = b.Reset()
		if _, err := l.Read(make([]byte, 1)); !errors.Is(err, ErrCut) {
			t.Error(err)
		}
		_ = l.Close()
	})
}
