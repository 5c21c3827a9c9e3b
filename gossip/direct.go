package gossip

import (
	"bufio"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// What is published goes over a line to each member that is connected. If there is a
// member that has none from here, but one from somebody else, the message is given to
// the topic as well: gossipsub carries it there.

const (
	protoLine  = "/line/1"
	lineReader = 32 << 10 // bytes read at once
)

// addLine makes room for what is published from now on to wait for p.
func (o *Overlay) addLine(p peer.ID, s network.Stream) *line {
	l := &line{to: p, stream: s, wake: make(chan struct{}, 1)}
	o.mu.Lock()
	defer o.mu.Unlock()
	l.hears = o.whoHears()
	o.setLines(append(slices.Clone(*o.lines.Load()), l))
	return l
}

// dropLine forgets what waits.
func (o *Overlay) dropLine(l *line) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.setLines(slices.DeleteFunc(slices.Clone(*o.lines.Load()), func(k *line) bool { return k == l }))
	k := o.link(l.to)
	l.mu.Lock()
	k.unsent += l.lost + uint64(len(l.queue))
	l.mu.Unlock()
	if k.line == l {
		k.line = nil
		o.hearsChanged()
	}
}

// setLines replaces the lines. The caller holds the lock.
func (o *Overlay) setLines(lines []*line) { o.lines.Store(&lines) }

// heard notes that the member at the far end has taken the line over.
func (o *Overlay) heard(l *line) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if k := o.link(l.to); k.line != l {
		k.line = l
		o.hearsChanged()
		o.greet(l.to)
	}
}

// greet: p hears all that is published here from now on, and we hear all of its; it
// may ask, and be asked, for what was before. The caller holds the lock.
func (o *Overlay) greet(p peer.ID) {
	if l := o.link(p); l.line != nil && l.from != nil {
		o.arrivals.add(p)
	}
}

// hearsChanged tells the others who hears us, and looks who does not. The caller holds
// the lock.
func (o *Overlay) hearsChanged() {
	frame := o.whoHears()
	for _, l := range *o.lines.Load() {
		l.tell(frame)
	}
	o.lookForDeaf()
}

// whoHears is the frame that names those who took our line over.
func (o *Overlay) whoHears() []byte {
	frame := []byte{}
	for p, l := range o.links {
		if l.line != nil {
			frame = appendHearer(frame, p)
		}
	}
	return frame
}

// lookForDeaf finds out whether somebody hears others and not us. The caller holds
// the lock.
func (o *Overlay) lookForDeaf() {
	deaf := false
	for _, l := range o.links {
		if l.from == nil {
			continue
		}
		for _, p := range l.hearers {
			k := o.links[p]
			deaf = deaf || p != o.self && (k == nil || k.line == nil) && o.cfg.Allow(p)
		}
	}
	o.relaying.Store(deaf)
}

// receive serves the line of a member.
func (o *Overlay) receive(ctx context.Context, s Stream) {
	p, in := s.Peer(), s.(stream).Stream
	acc := o.account(p)
	if !o.charge(p, acc, acc.line, 1, 0) {
		in.ResetWithError(network.StreamRateLimited)
		return
	}
	o.mu.Lock()
	l := o.link(p)
	before := l.from
	l.from, l.hearers = in, nil
	o.greet(p)
	o.mu.Unlock()
	if before != nil {
		before.ResetWithError(network.StreamSupplanted)
	}
	err := o.readLine(p, acc, in)
	o.mu.Lock()
	if l.from == in {
		l.from, l.hearers = nil, nil
		o.lookForDeaf()
	}
	o.mu.Unlock()
	if errors.Is(err, errOverLimit) {
		in.ResetWithError(network.StreamRateLimited)
	} else {
		in.Reset()
	}
	o.log.Debug("the line of a member ended", "peer", p, "err", err)
}

// readLine reads frames until the line ends or its sender is muted.
func (o *Overlay) readLine(p peer.ID, acc *account, s network.Stream) error {
	if _, err := s.Write([]byte{1}); err != nil {
		return err
	}
	r := bufio.NewReaderSize(s, lineReader)
	for {
		kind, data, err := readFrame(r, func(n int) bool { return o.charge(p, acc, acc.line, 1, n) })
		if errors.Is(err, errBadFrame) {
			o.blame(p, "what it sends on its line makes no sense")
		}
		if err != nil {
			return err
		}
		switch kind {
		case frameMessage:
			if !o.take(p, acc, data) {
				return errOverLimit
			}
		case frameGap:
			o.mu.Lock()
			o.greet(p)
			o.mu.Unlock()
		case frameHears:
			if !acc.mayTell(time.Now()) {
				o.blame(p, "it says all the time who hears it")
				return errOverLimit
			}
			o.noteHearers(p, s, data)
		}
	}
}

// noteHearers keeps the members that p says hear it.
func (o *Overlay) noteHearers(p peer.ID, s network.Stream, frame []byte) {
	list := parseHearers(frame, o.cfg.Allow)
	o.mu.Lock()
	defer o.mu.Unlock()
	if l := o.link(p); l.from == s {
		l.hearers = list
		o.lookForDeaf()
	}
}

// take delivers a message of p's line, unless it was here before or is invalid. It
// says no if p is muted for it.
func (o *Overlay) take(p peer.ID, acc *account, data []byte) bool {
	if o.seen.has(o.cfg.MessageID(data)) {
		return true
	}
	if !o.cfg.Validate(p, data) {
		return o.invalid(p, acc)
	}
	o.put(p, data)
	return true
}
