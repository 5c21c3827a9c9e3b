package migrate

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/dcnode/dcnode/vmm/ramstream"
)

// Estimate is what sending a machine's memory once would cost, told from a sample of
// its pages. The shares are of all memory and sum up to 1.
type Estimate struct {
	Pages   int     `json:"pages"`   // in the sample
	Zero    float64 `json:"zero"`    // pages of zeroes
	Disk    float64 `json:"disk"`    // pages equal to a block of the base images
	Self    float64 `json:"self"`    // pages equal to one sent before; see EstimateMemory
	Literal float64 `json:"literal"` // pages that are sent
	Ratio   float64 `json:"ratio"`   // bytes sent for each byte of a literal page; 0: there is none
	// SentBytes on the stream for the whole memory. Each page that the machine writes
	// meanwhile comes on top, at Ratio.
	SentBytes int64 `json:"sent_bytes"`
}

// Marks of QEMU's stream; package ramstream reads them.
const (
	streamMagic, streamVersion = 0x5145564d, 3
	sectionStart               = 1
	ramVersion                 = 4
	markZero, markMemSize      = 0x02, 0x04
	markPage, markContinue     = 0x08, 0x20
	sampledBlock               = "sample" // name of the block of RAM that has the sample
)

// EstimateMemory sends a sample through the encoder that a move uses, with the index
// of the bases that both sides hold (nil: none), and scales what comes out to a memory
// of so many bytes. The pages stand one after the other, as vmm.Sampler returns them.
//
// Two things make it a little high. Pages that equal each other are rarely both in a
// small sample, so Self is too small, and what it lacks counts as Literal; and pages
// from all over the memory compress less well together than neighbours do.
func EstimateMemory(pages []byte, memory int64, index *ramstream.Index) (Estimate, error) {
	n := len(pages) / ramstream.PageSize
	if n == 0 || len(pages)%ramstream.PageSize != 0 || memory < int64(len(pages)) {
		return Estimate{}, fmt.Errorf("estimate memory: a sample of %d bytes of %d: want whole pages of %d", len(pages), memory, ramstream.PageSize)
	}
	var sent int64
	out := writerFunc(func(p []byte) (int, error) {
		sent += headBytes + int64(len(p))
		return len(p), nil
	})
	enc, err := ramstream.NewEncoder(out, ramstream.EncoderConfig{Index: index})
	if err != nil {
		return Estimate{}, fmt.Errorf("estimate memory: %w", err)
	}
	if err := encodeSample(enc, pages); err != nil {
		return Estimate{}, fmt.Errorf("estimate memory: %w", err)
	}
	s := enc.Stats()
	if got := s.Pages.Total(); got != int64(n) {
		return Estimate{}, fmt.Errorf("estimate memory: the encoder found %d pages in a sample of %d", got, n)
	}
	share := func(k int64) float64 { return float64(k) / float64(n) }
	e := Estimate{
		Pages: n, Zero: share(s.Pages.Zero), Disk: share(s.Pages.Disk), Self: share(s.Pages.Self), Literal: share(s.Pages.Literal),
		SentBytes: int64(float64(sent) * float64(memory) / float64(len(pages))),
	}
	if s.Pages.Literal > 0 {
		e.Ratio = float64(s.Sent.Literal) / float64(s.Pages.Literal*ramstream.PageSize)
	}
	return e, nil
}

// encodeSample writes a stream with one block of RAM in which the pages are neighbours.
func encodeSample(enc *ramstream.Encoder, pages []byte) error {
	be := binary.BigEndian
	head := be.AppendUint32(be.AppendUint32(nil, streamMagic), streamVersion)
	head = be.AppendUint32(append(head, sectionStart), 0)
	head = append(append(head, 3), "ram"...)
	head = be.AppendUint32(be.AppendUint32(head, 0), ramVersion)
	head = be.AppendUint64(head, uint64(len(pages))|markMemSize)
	head = append(append(head, byte(len(sampledBlock))), sampledBlock...)
	head = be.AppendUint64(head, uint64(len(pages)))
	if _, err := enc.Write(head); err != nil {
		return err
	}
	zero := make([]byte, ramstream.PageSize)
	var rec []byte
	for off := 0; off < len(pages); off += ramstream.PageSize {
		page := pages[off : off+ramstream.PageSize]
		mark, body := uint64(markPage), page
		if bytes.Equal(page, zero) {
			mark, body = markZero, zero[:1]
		}
		if off > 0 {
			rec = be.AppendUint64(rec[:0], uint64(off)|mark|markContinue)
		} else {
			rec = be.AppendUint64(rec[:0], mark)
			rec = append(append(rec, byte(len(sampledBlock))), sampledBlock...)
		}
		if _, err := enc.Write(append(rec, body...)); err != nil {
			return err
		}
	}
	return enc.Close()
}
