package ramstream

import "encoding/binary"

// Marks of QEMU's stream (migration/savevm.h, migration/qemu-file-types.h).
const (
	magic         = 0x5145564d
	streamVersion = 3
	ramVersion    = 4

	sectionStart   = 0x01
	sectionPart    = 0x02
	sectionEnd     = 0x03
	subsection     = 0x05
	configuration  = 0x07
	command        = 0x08
	sectionFooter  = 0x7e
	cmdPackaged    = 7
	minPageBits    = 12
	maxBlocks      = 4096 // RAM blocks; a large machine has some dozens
	maxMachineName = 1024
	maxCaps        = 256
)

// sink takes what the parser found, in order and without a gap. The slices are
// valid during the call only.
type sink interface {
	opaque(p []byte)
	// zero takes a record of a page of zeroes; name is nil if the flag CONTINUE is set.
	zero(rec []byte, offset uint64, name []byte)
	// page takes a record of a page; its last PageSize bytes are the page.
	page(rec []byte, offset uint64, name []byte)
}

// step reads one token at the start of b. It returns how many bytes the token
// has and the step for what follows; more if b ends within the token. A step that
// does not understand returns 0 and (*parser).tail.
type step func(p *parser, b []byte) (int, step)

const more = -1

// parser cuts a stream into page records and opaque rest, as the bytes come.
type parser struct {
	sink   sink
	next   step
	buf    []byte // the start of a token that is not complete
	ram    uint32 // id of the section "ram"
	seen   bool   // ram is known
	ending bool   // within END of ram
	blocks map[string]uint64
	block  uint64 // length of the current block, which CONTINUE refers to
	total  uint64 // of a MEM_SIZE list: what is still to be listed
	caps   uint32 // of a capabilities list: the same
}

func newParser(s sink) *parser { return &parser{sink: s, next: (*parser).header} }

func (p *parser) feed(in []byte) {
	p.buf = append(p.buf, in...)
	b := p.buf
	for len(b) > 0 {
		n, next := p.next(p, b)
		if n == more {
			break
		}
		p.next, b = next, b[n:]
	}
	p.buf = append(p.buf[:0], b...)
}

// close gives away the start of a token whose end never came.
func (p *parser) close() {
	p.sink.opaque(p.buf)
	p.buf = p.buf[:0]
}

// take passes n structural bytes of b on, or asks for more.
func (p *parser) take(b []byte, n int, next step) (int, step) {
	if len(b) < n {
		return more, nil
	}
	p.sink.opaque(b[:n])
	return n, next
}

// tail is the rest of a stream that is not, or no longer, understood.
func (p *parser) tail(b []byte) (int, step) {
	return p.take(b, len(b), (*parser).tail)
}

func (p *parser) header(b []byte) (int, step) {
	if len(b) < 8 {
		return more, nil
	}
	if binary.BigEndian.Uint32(b) != magic || binary.BigEndian.Uint32(b[4:]) != streamVersion {
		return 0, (*parser).tail
	}
	return p.take(b, 8, (*parser).section)
}

func (p *parser) section(b []byte) (int, step) {
	switch b[0] {
	case configuration:
		return p.machineName(b)
	case sectionStart:
		return p.start(b)
	case sectionPart, sectionEnd:
		return p.again(b)
	case sectionFooter:
		return p.take(b, 5, (*parser).section)
	case command:
		return p.command(b)
	}
	return 0, (*parser).tail
}

func (p *parser) machineName(b []byte) (int, step) {
	if len(b) < 5 {
		return more, nil
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n > maxMachineName {
		return 0, (*parser).tail
	}
	return p.take(b, 5+int(n), (*parser).configured)
}

// configured reads the subsections of the configuration, if there are any.
func (p *parser) configured(b []byte) (int, step) {
	if b[0] != subsection {
		return 0, (*parser).section
	}
	if len(b) < 2 || len(b) < 2+int(b[1])+4 {
		return more, nil
	}
	n := 2 + int(b[1]) + 4
	switch string(b[2 : n-4]) {
	case "configuration/uuid":
		return p.take(b, n+16, (*parser).configured)
	case "configuration/target-page-bits":
		if len(b) >= n+4 && binary.BigEndian.Uint32(b[n:]) != minPageBits {
			return 0, (*parser).tail
		}
		return p.take(b, n+4, (*parser).configured)
	case "configuration/capabilities":
		if len(b) < n+4 {
			return more, nil
		}
		if p.caps = binary.BigEndian.Uint32(b[n:]); p.caps <= maxCaps {
			return p.take(b, n+4, (*parser).capability)
		}
	}
	return 0, (*parser).tail
}

func (p *parser) capability(b []byte) (int, step) {
	if p.caps == 0 {
		return 0, (*parser).configured
	}
	n, next := p.take(b, 1+int(b[0]), (*parser).capability)
	if n != more {
		p.caps--
	}
	return n, next
}

func (p *parser) command(b []byte) (int, step) {
	if len(b) < 5 {
		return more, nil
	}
	if binary.BigEndian.Uint16(b[1:]) == cmdPackaged {
		return 0, (*parser).tail
	}
	return p.take(b, 5+int(binary.BigEndian.Uint16(b[3:])), (*parser).section)
}

func (p *parser) start(b []byte) (int, step) {
	if len(b) < 6 || len(b) < 6+int(b[5])+8 {
		return more, nil
	}
	n := 6 + int(b[5])
	if p.seen || string(b[6:n]) != "ram" || binary.BigEndian.Uint32(b[n+4:]) != ramVersion {
		return 0, (*parser).tail // no other section says how long it is
	}
	p.ram, p.seen = binary.BigEndian.Uint32(b[1:]), true
	return p.take(b, n+8, (*parser).record)
}

func (p *parser) again(b []byte) (int, step) {
	if len(b) < 5 {
		return more, nil
	}
	if !p.seen || binary.BigEndian.Uint32(b[1:]) != p.ram {
		return 0, (*parser).tail
	}
	p.ending = b[0] == sectionEnd
	return p.take(b, 5, (*parser).record)
}

// record reads one record of the section "ram".
func (p *parser) record(b []byte) (int, step) {
	if len(b) < 8 {
		return more, nil
	}
	h := binary.BigEndian.Uint64(b)
	switch h & flagMask {
	case flagZero, flagZero | flagContinue, flagPage, flagPage | flagContinue:
		return p.pageRecord(b, h)
	case flagMemSize:
		p.total, p.blocks = h&^flagMask, make(map[string]uint64)
		return p.take(b, 8, (*parser).listed)
	case flagMultifdFlush:
		return p.take(b, 8, (*parser).record)
	case flagEOS:
		if p.ending {
			return p.take(b, 8, (*parser).tail) // what follows is device state
		}
		return p.take(b, 8, (*parser).section)
	}
	return 0, (*parser).tail
}

// listed reads one entry of the list of RAM blocks.
func (p *parser) listed(b []byte) (int, step) {
	if p.total == 0 {
		return 0, (*parser).record
	}
	n := 1 + int(b[0])
	if len(b) < n+8 {
		return more, nil
	}
	size := binary.BigEndian.Uint64(b[n:])
	if size > p.total || len(p.blocks) == maxBlocks {
		return 0, (*parser).tail
	}
	p.total -= size
	p.blocks[string(b[1:n])] = size
	return p.take(b, n+8, (*parser).listed)
}

func (p *parser) pageRecord(b []byte, h uint64) (int, step) {
	n, offset, size := 8, h&^flagMask, p.block
	var name []byte
	if h&flagContinue == 0 {
		if len(b) < 9 || len(b) < 9+int(b[8]) {
			return more, nil
		}
		n = 9 + int(b[8])
		name = b[9:n:n]
		size = p.blocks[string(name)]
	}
	if offset >= size { // an unknown block has no size
		return 0, (*parser).tail
	}
	body := PageSize
	if h&flagZero != 0 {
		body = 1
	}
	if len(b) < n+body {
		return more, nil
	}
	p.block = size
	switch rec := b[:n+body]; {
	case body == PageSize:
		p.sink.page(rec, offset, name)
	case rec[n] == 0:
		p.sink.zero(rec, offset, name)
	default: // a page filled with another byte
		p.sink.opaque(rec)
	}
	return n + body, (*parser).record
}
