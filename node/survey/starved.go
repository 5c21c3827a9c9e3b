package survey

import "time"

// watch begins to watch how starved of processors this process is. What it returns ends
// that, and is the share of the time that a goroutine had to wait after it was due; it may
// be called again.
type watch func() (starved func() float64)

const (
	mostStarved = 0.25                 // above it, what was measured says more of the host than of the path
	nap         = 5 * time.Millisecond // between two looks
)

// overslept watches by sleeping: who is woken up late had no processor, and so had none
// who reads what arrives. A run is over too soon for the load average to tell.
func overslept() func() float64 {
	stop, done := make(chan struct{}), make(chan float64, 1)
	go func() {
		began := time.Now()
		var late time.Duration
		t := time.NewTicker(nap)
		defer t.Stop()
		for last := began; ; {
			select {
			case <-t.C:
				now := time.Now()
				late += max(now.Sub(last)-nap*3/2, 0)
				last = now
			case <-stop:
				done <- float64(late) / float64(max(time.Since(began), nap))
				return
			}
		}
	}()
	share, ended := 0.0, false
	return func() float64 {
		if !ended {
			close(stop)
			share, ended = <-done, true
		}
		return share
	}
}
