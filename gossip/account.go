package gossip

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Limits are what one member may send here, on average; for a short time it may be
// twice of a second's worth at once. They are far above what honest members send,
// whose events come at most one in 0.25 ms and who catch up by asking. Zero: the default.
type Limits struct {
	Messages     int // a second, 8000 by default
	Bytes        int // of messages, a second, 64 MiB by default
	Invalid      int // messages that Validate refuses, a minute, 60 by default
	Requests     int // a second, 1000 by default
	RequestBytes int // a second, 64 MiB by default
	Concurrent   int // requests that are being answered at once, 64 by default
}

func (l *Limits) fill() {
	for v, standard := range map[*int]int{
		&l.Messages: 8000, &l.Bytes: 64 << 20, &l.Invalid: 60,
		&l.Requests: 1000, &l.RequestBytes: 64 << 20, &l.Concurrent: 64,
	} {
		if *v <= 0 {
			*v = standard
		}
	}
}

const (
	// A member over a limit is muted: nothing of the kind is taken from it. Each time
	// that takes twice as long, until it has behaved for forgiveAfter.
	firstMute    = 5 * time.Second
	lastMute     = 10 * time.Minute
	forgiveAfter = 10 * time.Minute
)

// bucket lets pass what comes at a rate, and twice a second's worth at once.
type bucket struct {
	rate, burst, level float64
	last               time.Time
}

func newBucket(perSecond, burst float64) bucket {
	return bucket{rate: perSecond, burst: burst, level: burst}
}

// take says whether n may pass.
func (b *bucket) take(n float64, now time.Time) bool {
	b.level = min(b.burst, b.level+b.rate*now.Sub(b.last).Seconds())
	b.last = now
	if b.level < n {
		return false
	}
	b.level -= n
	return true
}

// gauge bounds one kind of traffic from one member, in number and in bytes, and mutes
// it when it is over.
type gauge struct {
	count, bytes bucket
	until        time.Time     // muted
	length       time.Duration // of the mute
	excess       float64       // what came while it was muted, in units of count
}

func newGauge(count, bytes int) *gauge {
	// A message of the largest size always fits.
	return &gauge{
		count: newBucket(float64(count), 2*float64(count)),
		bytes: newBucket(float64(bytes), max(2*float64(bytes), 2*MaxMessage)),
	}
}

// mute mutes for twice as long as the last time.
func (g *gauge) mute(now time.Time) {
	if now.Sub(g.until) > forgiveAfter {
		g.length = firstMute / 2
	}
	g.length = min(2*g.length, lastMute)
	g.until, g.excess = now.Add(g.length), 0
}

// account is what one member has sent here.
type account struct {
	mu       sync.Mutex
	line     *gauge // what it publishes
	topic    *gauge // what it passes on of others: twice what mayRelay lets an honest one
	requests *gauge
	faults   bucket // invalid messages
	hears    bucket // frames that say who hears it
	shun     time.Time
	invalid  uint64
	dropped  uint64
	open     int             // requests that are being answered
	reason   string          // why it was muted last
	named    map[string]bool // reasons that the operator was told
}

func (o *Overlay) account(p peer.ID) *account {
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.accounts[p]
	if a == nil {
		l := o.cfg.Limits
		others := max(1, len(o.cfg.Members())-1)
		a = &account{
			line:     newGauge(l.Messages, l.Bytes),
			topic:    newGauge(2*others*l.Messages, 2*others*l.Bytes),
			requests: newGauge(l.Requests, l.RequestBytes),
			faults:   newBucket(float64(l.Invalid)/60, float64(l.Invalid)),
			hears:    newBucket(20, 200),
			named:    map[string]bool{},
		}
		o.accounts[p] = a
	}
	return a
}

// describe fills in what the account says.
func (a *account) describe(s *PeerState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Invalid, s.Dropped, s.Reason = a.invalid, a.dropped, a.reason
	s.MutedUntil = later(later(a.line.until, a.topic.until), later(a.requests.until, a.shun))
}

// mayRelay bounds what this member passes on of others, all together: or one that
// floods could have those muted that relay it.
func (o *Overlay) mayRelay(n int) bool {
	others := float64(max(1, len(o.cfg.Members())-1))
	o.relays.mu.Lock()
	defer o.relays.mu.Unlock()
	l, now := o.cfg.Limits, time.Now()
	r := &o.relays
	if r.count.burst == 0 {
		r.count = newBucket(others*float64(l.Messages), 2*others*float64(l.Messages))
		r.bytes = newBucket(others*float64(l.Bytes), max(2*others*float64(l.Bytes), 2*MaxMessage))
	}
	return r.count.take(1, now) && r.bytes.take(float64(n), now)
}

// mayTell says whether the member may say again who hears it, which is work for us.
func (a *account) mayTell(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hears.take(1, now)
}

// charge says whether p may send count messages more, of n bytes, of the kind of g, and
// mutes it if not.
// Whoever goes on regardless is disconnected until its mute ends.
func (o *Overlay) charge(p peer.ID, a *account, g *gauge, count, n int) bool {
	now := time.Now()
	a.mu.Lock()
	muted := now.Before(g.until)
	if g != a.requests {
		muted = muted || now.Before(a.line.until)
	}
	if !muted && g.count.take(float64(count), now) && g.bytes.take(float64(n), now) {
		a.mu.Unlock()
		return true
	}
	a.dropped++
	reason := "it sends more messages than the limit"
	if g == a.requests {
		reason = "it asks more than the limit"
	}
	shun := false
	if muted {
		if g.excess++; g.excess > g.count.burst {
			g.excess, a.shun, shun = 0, later(g.until, a.line.until), true
			reason = "it goes on although it is muted"
		}
	} else {
		g.mute(now)
	}
	until := later(g.until, a.shun)
	first := (!muted || shun) && a.first(reason)
	a.mu.Unlock()
	if shun {
		for _, c := range o.host.Network().ConnsToPeer(p) {
			go c.CloseWithError(network.ConnGated)
		}
	}
	if !muted || shun {
		o.nameCulprit(p, reason, until, first)
	}
	return false
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// first says whether the reason is a new one. The caller holds the lock.
func (a *account) first(reason string) bool {
	news := !a.named[reason]
	a.named[reason], a.reason = true, reason
	return news
}

// nameCulprit tells the operator, once for each reason.
func (o *Overlay) nameCulprit(p peer.ID, reason string, until time.Time, first bool) {
	if first {
		o.log.Warn("a member is muted for a while", "peer", p, "reason", reason, "until", until)
		return
	}
	o.log.Debug("a member is muted again", "peer", p, "reason", reason, "until", until)
}

// invalid counts a message that Validate refused and says whether p may go on.
func (o *Overlay) invalid(p peer.ID, a *account) bool {
	return o.fault(p, a, "its messages are invalid")
}

// Blame counts a fault of a member that its reader found, a signature that is wrong
// say, like a message that Config.Validate refuses: who has too many is muted. The
// reason is for the operator and one of a few.
func (o *Overlay) Blame(p peer.ID, reason string) { o.blame(p, reason) }

func (o *Overlay) blame(p peer.ID, reason string) {
	if p != o.self && o.cfg.Allow(p) {
		o.fault(p, o.account(p), reason)
	}
}

func (o *Overlay) fault(p peer.ID, a *account, reason string) bool {
	now := time.Now()
	a.mu.Lock()
	a.invalid++
	if a.faults.take(1, now) {
		a.mu.Unlock()
		return true
	}
	fresh := !now.Before(a.line.until)
	first := false
	if fresh {
		a.line.mute(now)
		first = a.first(reason)
	}
	until := a.line.until
	a.mu.Unlock()
	if fresh {
		o.nameCulprit(p, reason, until, first)
		o.cutLine(p)
	}
	return false
}

// cutLine ends the line on which p sends.
func (o *Overlay) cutLine(p peer.ID) {
	o.mu.Lock()
	var s network.Stream
	if l := o.links[p]; l != nil {
		s = l.from
	}
	o.mu.Unlock()
	if s != nil {
		s.ResetWithError(network.StreamRateLimited)
	}
}

// isShunned says whether p was disconnected for going on while it was muted.
func (o *Overlay) isShunned(p peer.ID) bool {
	o.mu.Lock()
	a := o.accounts[p]
	o.mu.Unlock()
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Before(a.shun)
}

// admitRequest says whether p may ask now; done is to be called when it is answered.
func (o *Overlay) admitRequest(p peer.ID) (done func(), ok bool) {
	a := o.account(p)
	if !o.charge(p, a, a.requests, 1, 0) {
		return nil, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open >= o.cfg.Limits.Concurrent {
		a.dropped++
		return nil, false
	}
	a.open++
	return func() {
		a.mu.Lock()
		a.open--
		a.mu.Unlock()
	}, true
}
