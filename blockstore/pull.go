package blockstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Bounds of what is outstanding. A window is wanted bytes at one holder: it
// follows twice what the holder delivered in the last second, which is more
// than two bandwidth-delay products on any path under 300 ms, and keeps what a
// slow holder is left with at the end to about two seconds' worth.
const (
	firstWindow = 4 << 20
	leastWindow = 1 << 20
	mostWindow  = 32 << 20
	mostWants   = 512      // wants at all holders together
	mostWaiting = 512      // wants that wait for a holder
	guessSize   = 16 << 10 // of a block whose size is not known
	tickEvery   = 250 * time.Millisecond
	askAgain    = time.Second // between two rounds of asking everyone
	rounds      = 2           // in which every holder must refuse
)

// pull fetches blocks from holders. One goroutine (run) owns its state; senders
// and the network talk to it through inbox, and a writer stores what arrives.
type pull struct {
	x      *exchange
	store  *Store
	ctx    context.Context // ends with close; the lifetime of its goroutines
	cancel context.CancelCauseFunc
	tasks  sync.WaitGroup
	inbox  chan arrival

	holders map[peer.ID]*holder
	list    []*holder // in the order given

	orders   map[cid.Cid]*order
	waiting  []*order // no holder owes them
	writing  map[cid.Cid]bool
	wants    int   // owed by all holders
	accepted int32 // orders so far; earlier ones are served first
	last     time.Time
	report   FetchReport
}

// newPull connects to the holders; close it.
func (s *Store) newPull(ctx context.Context, ids []peer.ID) (*pull, error) {
	x := s.network()
	if x == nil {
		return nil, ErrOffline
	}
	p := &pull{
		x: x, store: s, inbox: make(chan arrival, 64), holders: make(map[peer.ID]*holder),
		orders: make(map[cid.Cid]*order), writing: make(map[cid.Cid]bool),
	}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	for _, id := range ids {
		if _, ok := p.holders[id]; ok || id == x.host.ID() {
			continue
		}
		h := &holder{id: id, out: newSender(p, id), owes: make(map[cid.Cid]*order), window: firstWindow, why: errors.New("not connected yet")}
		p.holders[id] = h
		p.list = append(p.list, h)
	}
	if len(p.list) == 0 {
		p.cancel(nil)
		return nil, fmt.Errorf("%w: no other holder was named", ErrNotHeld)
	}
	x.mu.Lock()
	x.pulls[p] = struct{}{}
	x.mu.Unlock()
	for _, h := range p.list {
		x.host.ConnManager().Protect(h.id, p.tag())
		p.tasks.Go(func() { h.out.run(p.ctx) })
	}
	return p, nil
}

// close takes back what is still wanted and ends the pull's goroutines.
func (p *pull) close() {
	for c, o := range p.orders {
		for h := range o.asked {
			h.out.queue(c, entry{cancel: true})
		}
	}
	p.x.mu.Lock()
	delete(p.x.pulls, p)
	p.x.mu.Unlock()
	p.cancel(nil)
	p.tasks.Wait()
	for _, h := range p.list {
		p.x.host.ConnManager().Unprotect(h.id, p.tag())
	}
}

// tag keeps the connections to holders from being trimmed while this pull lasts.
func (p *pull) tag() string { return fmt.Sprintf("blockstore-pull-%p", p) }

// deliver hands news to run; it waits while run is busy, which holds the
// holder's stream back.
func (p *pull) deliver(a arrival) {
	select {
	case p.inbox <- a:
	case <-p.ctx.Done():
	}
}

// fetch gets every block that source yields, storing each before done is told
// of it. source is closed when there are no more.
func (p *pull) fetch(source <-chan block, done func(blocks int, bytes int64)) error {
	w := p.startWriter()
	err := p.loop(source, w, done)
	close(w.in)
	for range w.out { // until the writer has ended
	}
	return err
}

func (p *pull) loop(source <-chan block, w *writer, done func(int, int64)) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	p.last = time.Now()
	for {
		p.assign()
		next := source
		if len(p.waiting) >= mostWaiting || p.wants >= mostWants || !p.anyRoom() {
			next = nil
		}
		if source == nil && len(p.orders) == 0 && len(p.writing) == 0 {
			return nil
		}
		var err error
		select {
		case <-p.ctx.Done():
			err = context.Cause(p.ctx)
		case b, ok := <-next:
			if !ok {
				source = nil
				break
			}
			err = p.accept(b)
		case a := <-p.inbox:
			err = p.arrived(a, w, done)
		case r := <-w.out:
			err = p.written(r, done)
		case now := <-tick.C:
			err = p.tick(now)
		}
		if err != nil {
			return err
		}
	}
}

func (p *pull) anyRoom() bool {
	for _, h := range p.list {
		if h.room() {
			return true
		}
	}
	return false
}

// accept takes a wanted block from the source, unless it is under way or here.
func (p *pull) accept(b block) error {
	if p.orders[b.cid] != nil || p.writing[b.cid] {
		return nil
	}
	if ok, err := p.store.local.Has(p.ctx, b.cid); ok || err != nil {
		return err
	}
	p.accepted++
	o := &order{block: b, priority: math.MaxInt32 - p.accepted, asked: make(map[*holder]bool), refused: make(map[*holder]bool)}
	p.orders[b.cid] = o
	p.waiting = append(p.waiting, o)
	return nil
}

// assign gives waiting orders to holders with room.
func (p *pull) assign() {
	now := time.Now()
	still := p.waiting[:0]
	for _, o := range p.waiting {
		if h := p.choose(o, now); h != nil {
			p.ask(o, h, now)
		} else {
			still = append(still, o)
		}
	}
	clear(p.waiting[len(still):])
	p.waiting = still
}

// choose is the holder with the largest part of its window free.
func (p *pull) choose(o *order, now time.Time) *holder {
	if p.wants >= mostWants || now.Before(o.after) {
		return nil
	}
	var best *holder
	var bestLoad float64
	for _, h := range p.list {
		if !h.room() || o.refused[h] || h == o.avoid {
			continue
		}
		if load := float64(h.owed) / float64(h.window); best == nil || load < bestLoad {
			best, bestLoad = h, load
		}
	}
	if best == nil && o.avoid != nil && o.avoid.room() && !o.refused[o.avoid] && !p.othersUp(o) {
		return o.avoid
	}
	return best
}

// othersUp reports whether somebody else than o.avoid can still be asked for o.
func (p *pull) othersUp(o *order) bool {
	for _, h := range p.list {
		if h != o.avoid && h.up && !o.refused[h] {
			return true
		}
	}
	return false
}

func (p *pull) ask(o *order, h *holder, now time.Time) {
	if len(h.owes) == 0 {
		h.heard = now
	}
	o.at, o.asked[h] = h, true
	h.owes[o.cid] = o
	h.owed += o.weight()
	o.due, o.since = h.bytes+2*h.owed+firstWindow, now
	p.wants++
	h.out.queue(o.cid, entry{priority: o.priority})
}

// release takes o from the holder that owes it.
func (p *pull) release(o *order) {
	if h := o.at; h != nil {
		delete(h.owes, o.cid)
		h.owed -= o.weight()
		o.at = nil
		p.wants--
	}
}

// arrived handles news from a holder.
func (p *pull) arrived(a arrival, w *writer, done func(int, int64)) error {
	h := p.holders[a.from]
	switch {
	case h == nil:
		return nil
	case a.up:
		h.up, h.why, h.heard = true, nil, time.Now()
	case a.down != nil:
		p.lost(h, a.down)
	}
	for _, c := range a.refused {
		if err := p.refuse(h, c); err != nil {
			return err
		}
	}
	for _, b := range a.blocks {
		if err := p.keep(h, b, w, done); err != nil {
			return err
		}
	}
	return nil
}

// lost takes back all that h owes; its sender connects again.
func (p *pull) lost(h *holder, why error) {
	if h.up {
		p.store.log.Warn("holder of blocks is gone", "peer", h.id.String(), "owed", len(h.owes), "err", why)
		h.out.restart()
	}
	h.up, h.why, h.window = false, why, firstWindow
	p.takeBack(h)
}

func (p *pull) takeBack(h *holder) {
	for _, o := range h.owes {
		p.release(o)
		p.waiting = append(p.waiting, o)
	}
}

// refuse notes that h has not, or may not give, the block c. Everyone is asked
// in two rounds, for who was let in a moment ago may not be known everywhere.
func (p *pull) refuse(h *holder, c cid.Cid) error {
	o := p.orders[c]
	if o == nil || o.at != h {
		return nil
	}
	p.release(o)
	p.waiting = append(p.waiting, o)
	o.refused[h] = true
	if len(o.refused) < len(p.list) {
		return nil
	}
	if o.round++; o.round == rounds {
		return fmt.Errorf("block %s: %w: it was refused by %s: name holders that have the image, or publish it again", c, ErrNotHeld, p.states())
	}
	clear(o.refused)
	o.after = time.Now().Add(askAgain)
	return nil
}

// keep takes a block that h sent.
func (p *pull) keep(h *holder, b blocks.Block, w *writer, done func(int, int64)) error {
	c, n := b.Cid(), int64(len(b.RawData()))
	o := p.orders[c]
	if o == nil {
		return p.unwanted(h, c, n)
	}
	if o.size > 0 && n != o.size || n > maxBlock {
		return fmt.Errorf("%w: block %s has %d bytes where %d are due", ErrFormat, c, n, o.size)
	}
	if o.at == nil {
		p.waiting = without(p.waiting, o)
	}
	p.release(o)
	delete(p.orders, c)
	for other := range o.asked {
		if other != h {
			other.out.queue(c, entry{cancel: true})
		}
	}
	p.last, h.heard = time.Now(), time.Now()
	h.lately += n
	h.blocks++
	h.bytes += n
	p.writing[c] = true
	for {
		select {
		case w.in <- b:
			return nil
		case r := <-w.out:
			if err := p.written(r, done); err != nil {
				return err
			}
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
}

func without(os []*order, o *order) []*order {
	for i := range os {
		if os[i] == o {
			return append(os[:i], os[i+1:]...)
		}
	}
	return os
}

// unwanted counts a block that nobody waits for.
func (p *pull) unwanted(h *holder, c cid.Cid, n int64) error {
	ok, err := p.store.local.Has(p.ctx, c)
	if err != nil {
		return err
	}
	if ok || p.writing[c] {
		p.report.Duplicates++
		h.heard = time.Now()
		return nil
	}
	p.report.Unasked++
	p.store.log.Warn("peer sent a block that was not asked for", "peer", h.id.String(), "cid", c.String(), "bytes", n)
	return nil
}

// written notes that blocks are on disk.
func (p *pull) written(r stored, done func(int, int64)) error {
	if r.err != nil {
		return r.err
	}
	var bytes int64
	for _, b := range r.blocks {
		delete(p.writing, b.Cid())
		bytes += int64(len(b.RawData()))
	}
	p.report.Blocks += len(r.blocks)
	p.report.Bytes += bytes
	done(len(r.blocks), bytes)
	return nil
}

// tick sets the windows, and looks for silence.
func (p *pull) tick(now time.Time) error {
	for _, h := range p.list {
		h.rate += (float64(h.lately)/tickEvery.Seconds() - h.rate) / 4
		if h.lately > 0 {
			h.window = min(max(int64(2*h.rate), leastWindow, h.window-h.window/8), mostWindow)
		}
		h.lately = 0
		if h.up && len(h.owes) > 0 && now.Sub(h.heard) > p.store.cfg.Patience {
			p.silent(h)
		}
		p.overdue(h, now)
	}
	if len(p.writing) > 0 || len(p.orders) == 0 {
		p.last = now
	}
	if now.Sub(p.last) > p.store.cfg.StallTimeout {
		return p.stalled(now)
	}
	return nil
}

// overdue takes back what h passed over: it has since sent twice what it owed
// when it was asked. A Bitswap server loses the blocks of a message that it
// could not send, and says nothing.
func (p *pull) overdue(h *holder, now time.Time) {
	for _, o := range h.owes {
		if h.bytes > o.due && now.Sub(o.since) > p.store.cfg.Patience/2 {
			p.store.log.Debug("holder passed a block over", "peer", h.id.String(), "cid", o.cid.String())
			p.release(o)
			o.avoid = h
			p.waiting = append(p.waiting, o)
		}
	}
}

// silent takes its orders from a holder that sends nothing, and asks it for one
// block at a time, over a new stream, until it speaks.
func (p *pull) silent(h *holder) {
	p.store.log.Warn("holder of blocks is silent", "peer", h.id.String(), "owed", len(h.owes))
	for c, o := range h.owes {
		o.avoid = h
		h.out.queue(c, entry{cancel: true})
	}
	p.takeBack(h)
	h.window, h.rate = 1, 0
	h.out.restart()
}

// stalled is the error for a transfer in which nothing moves.
func (p *pull) stalled(now time.Time) error {
	for c := range p.orders {
		return fmt.Errorf("%w: nothing arrived for %s; %d blocks are wanted, among them %s; holders: %s: check the link, or name other holders",
			ErrStalled, now.Sub(p.last).Round(time.Second), len(p.orders), c, p.states())
	}
	return ErrStalled
}

// states says how it stands with each holder.
func (p *pull) states() string {
	var all []string
	for _, h := range p.list {
		s := fmt.Sprintf("%s (sent %d blocks)", h.id, h.blocks)
		if !h.up {
			s = fmt.Sprintf("%s (%v)", h.id, h.why)
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}
