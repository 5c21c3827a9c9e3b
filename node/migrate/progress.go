package migrate

import (
	"sync"
	"time"
)

const reportEvery = 100 * time.Millisecond

// meter keeps the progress and tells it.
type meter struct {
	mu     sync.Mutex
	tell   func(Progress)
	now    Progress
	phases []PhaseTime
	began  time.Time // this phase
	told   time.Time
	sent   int64 // when the rate was last computed
	rated  time.Time
}

func newMeter(tell func(Progress)) *meter {
	if tell == nil {
		tell = func(Progress) {}
	}
	now := time.Now()
	m := &meter{tell: tell, began: now, told: now, rated: now}
	m.now = Progress{Phase: Preparing, RemainingBytes: -1}
	return m
}

// enter begins a phase and tells it at once.
func (m *meter) enter(p Phase) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.close()
	m.now.Phase, m.now.RemainingBytes = p, -1
	m.tellNow(time.Now())
}

// close ends the running phase in the list of phases.
func (m *meter) close() {
	now := time.Now()
	m.phases = append(m.phases, PhaseTime{m.now.Phase, now.Sub(m.began)})
	m.began = now
}

func (m *meter) phase() Phase {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now.Phase
}

// add counts bytes done and sent, and tells if it is time.
func (m *meter) add(done, sent int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.DoneBytes += done
	m.now.SentBytes += sent
	if m.now.RemainingBytes > 0 {
		m.now.RemainingBytes = max(0, m.now.RemainingBytes-done)
	}
	if now := time.Now(); now.Sub(m.told) >= reportEvery {
		m.tellNow(now)
	}
}

// remaining says how many bytes the pass that begins has to send. Only the disk
// phase consists of passes; later it is not known what remains.
func (m *meter) remaining(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now.Phase == Disk {
		m.now.RemainingBytes = n
	}
}

func (m *meter) tellNow(now time.Time) {
	m.told = now
	if took := now.Sub(m.rated); took >= reportEvery {
		m.now.Rate = float64(m.now.SentBytes-m.sent) / took.Seconds()
		m.sent, m.rated = m.now.SentBytes, now
	}
	m.tell(m.now)
}

// finish returns the phases; the running one ends now.
func (m *meter) finish() []PhaseTime {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.close()
	return m.phases
}
