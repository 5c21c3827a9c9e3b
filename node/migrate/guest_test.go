package migrate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/ramstream"
)

const page = ramstream.PageSize

// guest is a little machine that keeps writing pages and disk blocks. It is the
// source's vmm.Outgoing and writes its memory as QEMU does.
type guest struct {
	mu          sync.Mutex
	rng         *rand.Rand
	pages, disk []byte
	dirtyPages  []bool
	dirtyBlocks []bool
	rounds      int           // before it pauses
	think       time.Duration // between two pages
	onPage      func()        // before each page, without the lock
	onPause     func()
	truncate    bool // end the stream without pausing
	readErr     error
	calls       []string
	paused      chan struct{}
	finish      chan struct{}
	pw          *io.PipeWriter
	sender      sync.WaitGroup
	running     bool
	plain       bytes.Buffer // what it wrote
}

// newGuest makes a machine whose memory is partly blocks of its disk's base.
func newGuest(seed uint64, pages, blocks int) (*guest, []byte) {
	g := &guest{
		rng: rand.New(rand.NewPCG(seed, 99)), rounds: 3, running: true,
		pages: make([]byte, pages*page), disk: make([]byte, blocks*page),
		dirtyPages: make([]bool, pages), dirtyBlocks: make([]bool, blocks),
		paused: make(chan struct{}), finish: make(chan struct{}),
	}
	for i := range g.disk {
		g.disk[i] = byte(i / 128) // little to send, for tests that cut everywhere
		if blocks > 4 {
			g.disk[i] = byte(g.rng.Uint32())
		}
	}
	base := bytes.Clone(g.disk)
	for i := range pages {
		if b := g.rng.IntN(blocks); i%3 == 0 {
			copy(g.pages[i*page:], g.disk[b*page:(b+1)*page])
		}
		g.dirtyPages[i] = true
	}
	for range pages + blocks {
		g.step()
	}
	return g, base
}

// step writes a page and a block, or zeroes them.
func (g *guest) step() {
	i, j, v := g.rng.IntN(len(g.dirtyPages)), g.rng.IntN(len(g.dirtyBlocks)), byte(g.rng.Uint32())
	if i%3 != 0 {
		g.pages[i*page+g.rng.IntN(page)] = v
		g.dirtyPages[i] = true
	}
	if j%2 == 0 {
		b := g.disk[j*page : (j+1)*page]
		if v < 50 {
			clear(b)
		}
		b[g.rng.IntN(page)] = v
		g.dirtyBlocks[j] = true
	}
}

// work runs the machine for n steps, if it runs.
func (g *guest) work(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for range n {
		if g.running {
			g.step()
		}
	}
}

func (g *guest) called(s string) {
	if !slices.Contains(g.calls, s) || s == "finish" || s == "release" {
		g.calls = append(g.calls, s)
	}
}

func (g *guest) release(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.called("release")
	return nil
}

func (g *guest) released() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(g.calls, "release")
}

func (g *guest) Changes(context.Context) (out []vmm.Extent, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.called("changes")
	for i, dirty := range g.dirtyBlocks {
		g.dirtyBlocks[i] = false
		e := vmm.Extent{Offset: int64(i) * page, Length: page, Zero: isZero(g.disk[i*page : (i+1)*page])}
		switch last := len(out) - 1; {
		case !dirty:
		case last >= 0 && out[last].Zero == e.Zero && out[last].Offset+out[last].Length == e.Offset:
			out[last].Length += page
		default:
			out = append(out, e)
		}
	}
	return out, nil
}

func isZero(p []byte) bool { return bytes.Count(p, []byte{0}) == len(p) }

func (g *guest) ReadDisk(_ context.Context, disk int, p []byte, off int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.finish:
		return errors.New("the disk was read after finish")
	default:
	}
	copy(p, g.disk[off:])
	return g.readErr
}

func (g *guest) Memory(context.Context) (io.ReadCloser, error) {
	pr, pw := io.Pipe()
	g.pw = pw
	g.sender.Go(func() { pw.CloseWithError(g.stream()) })
	return pr, nil
}

func (g *guest) Paused() <-chan struct{} { return g.paused }

func (g *guest) Finish(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.called("finish")
	close(g.finish)
	return nil
}

func (g *guest) Downtime() int64 { return 7 }

func (g *guest) Cancel(_ context.Context, resume bool) error {
	if g.pw != nil {
		g.pw.CloseWithError(errors.New("cancelled"))
		select {
		case <-g.finish:
		default:
			close(g.finish)
		}
	}
	g.sender.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.called(fmt.Sprintf("cancel %v", resume))
	g.running = resume
	return nil
}

func (g *guest) write(p []byte) error {
	g.plain.Write(p)
	_, err := g.pw.Write(p)
	return err
}

const guestTail = "\x04device state: all is well"

// stream writes rounds of pages, pauses, and writes the rest.
func (g *guest) stream() error {
	be32, be64 := binary.BigEndian.AppendUint32, binary.BigEndian.AppendUint64
	h := be32(be32(nil, 0x5145564d), 3)
	h = append(be32(append(h, 1), 2), "\x03ram"...)
	h = be64(be32(be32(h, 0), 4), uint64(len(g.pages))|4)
	h = append(h, "\x06pc.ram"...)
	h = be64(be64(h, uint64(len(g.pages))), 0x10)
	if err := g.write(h); err != nil {
		return err
	}
	first := true
	for r := 0; r <= g.rounds; r++ {
		kind := byte(2)
		if r == g.rounds {
			if g.truncate {
				return nil
			}
			g.mu.Lock()
			g.running = false
			g.mu.Unlock()
			if g.onPause != nil {
				g.onPause()
			}
			close(g.paused)
			<-g.finish
			kind = 3
		}
		if err := g.write(be32([]byte{kind}, 2)); err != nil {
			return err
		}
		for i := range g.dirtyPages {
			if rec := g.record(i, first); rec != nil {
				first = false
				if err := g.write(rec); err != nil {
					return err
				}
			}
		}
		if err := g.write(be64(nil, 0x10)); err != nil {
			return err
		}
	}
	return g.write([]byte(guestTail))
}

// record is the page record of a dirty page; then the machine works a little.
func (g *guest) record(i int, named bool) []byte {
	if g.onPage != nil {
		g.onPage()
	}
	g.mu.Lock()
	dirty, p := g.dirtyPages[i], bytes.Clone(g.pages[i*page:(i+1)*page])
	g.dirtyPages[i] = false
	g.mu.Unlock()
	if !dirty {
		return nil
	}
	time.Sleep(g.think)
	g.work(1)
	flags, name := uint64(0x20), ""
	if named {
		flags, name = 0, "\x06pc.ram"
	}
	if isZero(p) {
		flags, p = flags|2, []byte{0}
	} else {
		flags |= 8
	}
	rec := binary.BigEndian.AppendUint64(nil, uint64(i*page)|flags)
	return append(append(rec, name...), p...)
}

// room is the place where a guest arrives: the destination's vmm.Incoming.
type room struct {
	mu          sync.Mutex
	pages, disk []byte
	plain       bytes.Buffer
	closed      bool
	flushed     bool
	loaded      bool
	slowWrite   time.Duration
	slowFlush   time.Duration
	hang        chan struct{} // memory is not taken until it is closed
	writeErr    error
	loadErr     error
	late        string // what came out of order
}

func newRoom(g *guest, base []byte) *room {
	return &room{pages: make([]byte, len(g.pages)), disk: bytes.Clone(base), flushed: true}
}

func (r *room) WriteDisk(_ context.Context, disk int, p []byte, off int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if disk != 0 || off+int64(len(p)) > int64(len(r.disk)) {
		return fmt.Errorf("no such block: disk %d at %d", disk, off)
	}
	copy(r.disk[off:], p)
	r.flushed = false
	return r.writeErr
}

func (r *room) ZeroDisk(ctx context.Context, disk int, off, n int64) error {
	if n > int64(len(r.disk)) {
		return errors.New("no such blocks")
	}
	return r.WriteDisk(ctx, disk, make([]byte, n), off)
}

func (r *room) Flush(context.Context) error {
	time.Sleep(r.slowFlush)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flushed = true
	return nil
}

func (r *room) Memory(context.Context) (io.WriteCloser, error) { return (*roomMemory)(r), nil }

func (r *room) Loaded(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed || !r.flushed {
		return fmt.Errorf("loaded too early: memory closed %v, disks flushed %v", r.closed, r.flushed)
	}
	if r.loadErr != nil {
		return r.loadErr
	}
	if err := r.load(r.plain.Bytes()); err != nil {
		return err
	}
	r.loaded = true
	return nil
}

// load reads the guest's stream.
func (r *room) load(p []byte) error {
	const head = 8 + 5 + 4 + 8 + 8 + 7 + 8 + 8
	if len(p) < head {
		return fmt.Errorf("stream of %d bytes", len(p))
	}
	p = p[head:]
	for len(p) > 0 && (p[0] == 2 || p[0] == 3) {
		for p = p[5:]; ; {
			h := binary.BigEndian.Uint64(p)
			p = p[8:]
			if h&0x10 != 0 {
				break
			}
			if h&0x20 == 0 {
				p = p[7:]
			}
			at := r.pages[h&^0xfff:][:page]
			if h&2 != 0 {
				clear(at)
				p = p[1:]
			} else {
				copy(at, p[:page])
				p = p[page:]
			}
		}
	}
	if string(p) != guestTail {
		return errors.New("device state is missing")
	}
	return nil
}

// roomMemory is a room's way in for memory.
type roomMemory room

func (m *roomMemory) Write(p []byte) (int, error) {
	if m.hang != nil {
		<-m.hang
	}
	time.Sleep(m.slowWrite)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, errors.New("write after close")
	}
	if bytes.Contains(p, []byte(guestTail)) && !m.flushed {
		m.late = "the last memory came before the disks were flushed"
	}
	return m.plain.Write(p)
}

func (m *roomMemory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed && m.hang != nil {
		close(m.hang)
	}
	m.closed = true
	return nil
}
