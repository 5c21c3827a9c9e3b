package gossip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A request is one stream. All numbers are big-endian, 32 bits.
//
//	request: length | longest reply taken | bytes
//	reply:   status (1 byte) | length | bytes, or the words of the error

const (
	// MaxRequest is the longest request, in bytes.
	MaxRequest = 1 << 20

	maxErrorText   = 4096
	requestTimeout = time.Minute      // both ways, for a caller without a deadline
	readTimeout    = 30 * time.Second // to receive a request
	handleTimeout  = 30 * time.Second // to answer it
	replyTimeout   = 2 * time.Minute  // to send the answer

	statusOK    = 0
	statusError = 1
)

// RemoteError is an error that the handler at the far side returned.
type RemoteError struct {
	Peer peer.ID
	Text string
}

func (e *RemoteError) Error() string { return fmt.Sprintf("%s says: %s", e.Peer, e.Text) }

// ErrTooLarge: a request or reply is over its limit.
var ErrTooLarge = errors.New("too large")

// Request asks a member one thing: req, at most [MaxRequest] bytes, goes out, and one
// reply of at most max bytes comes back. ctx bounds it all; without a deadline it is
// one minute. An error of the far handler is a [*RemoteError].
func (o *Overlay) Request(ctx context.Context, to peer.ID, proto string, req []byte, max int) ([]byte, error) {
	if len(req) > MaxRequest {
		return nil, fmt.Errorf("request %s: %w: %d bytes, the limit is %d", proto, ErrTooLarge, len(req), MaxRequest)
	}
	ctx, cancel := withTimeout(ctx, requestTimeout)
	defer cancel()
	s, err := o.Open(ctx, to, proto)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	defer stop()
	reply, err := exchange(s, req, max)
	if err != nil {
		s.Reset()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("request %s of %s: %w", proto, to, err)
	}
	s.Close()
	return reply, nil
}

func exchange(s Stream, req []byte, max int) ([]byte, error) {
	head := make([]byte, 8, 8+len(req))
	binary.BigEndian.PutUint32(head, uint32(len(req)))
	binary.BigEndian.PutUint32(head[4:], uint32(max))
	if _, err := s.Write(append(head, req...)); err != nil {
		return nil, err
	}
	if err := s.CloseWrite(); err != nil {
		return nil, err
	}
	return readReply(s, s.Peer(), max)
}

// readReply reads what from answers, at most max bytes.
func readReply(r io.Reader, from peer.ID, max int) ([]byte, error) {
	var answer [5]byte
	if _, err := io.ReadFull(r, answer[:]); err != nil {
		return nil, err
	}
	n, limit := int64(binary.BigEndian.Uint32(answer[1:])), int64(max)
	if answer[0] != statusOK {
		limit = maxErrorText
	}
	if n > limit {
		return nil, fmt.Errorf("%w: a reply of %d bytes, at most %d wanted", ErrTooLarge, n, limit)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	if answer[0] != statusOK {
		return nil, &RemoteError{Peer: from, Text: string(body)}
	}
	return body, nil
}

// HandleRequest serves requests of members under a protocol, "/frontier/1" say. h
// has half a minute; its error travels back as words. Register before Run.
func (o *Overlay) HandleRequest(proto string, h func(ctx context.Context, from peer.ID, req []byte) ([]byte, error)) {
	o.Handle(proto, func(ctx context.Context, s Stream) {
		done, ok := o.admitRequest(s.Peer())
		if !ok {
			s.(stream).ResetWithError(network.StreamRateLimited)
			return
		}
		defer done()
		if err := o.serve(ctx, s, h); err != nil {
			o.log.Debug("request not answered", "peer", s.Peer(), "protocol", proto, "err", err)
			s.Reset()
		}
	})
}

func (o *Overlay) serve(ctx context.Context, s Stream, h func(context.Context, peer.ID, []byte) ([]byte, error)) error {
	if err := s.SetDeadline(time.Now().Add(readTimeout)); err != nil {
		return err
	}
	acc := o.account(s.Peer())
	req, max, err := readRequest(s, func(n int) bool { return o.charge(s.Peer(), acc, acc.requests, 0, n) })
	if errors.Is(err, ErrTooLarge) {
		return answer(s, statusError, []byte(err.Error()))
	}
	if err != nil {
		return err
	}
	hctx, cancel := context.WithTimeout(ctx, handleTimeout)
	defer cancel()
	reply, err := h(hctx, s.Peer(), req)
	switch {
	case err != nil:
		text := err.Error()
		return answer(s, statusError, []byte(text[:min(len(text), maxErrorText)]))
	case uint64(len(reply)) > uint64(max):
		return answer(s, statusError, fmt.Appendf(nil, "reply %v: %d bytes, at most %d wanted", ErrTooLarge, len(reply), max))
	}
	return answer(s, statusOK, reply)
}

// readRequest reads a request, if admit lets that many bytes pass, and the length of the
// longest reply to it.
func readRequest(r io.Reader, admit func(n int) bool) (req []byte, max uint32, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, err
	}
	n, max := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
	if n > MaxRequest {
		return nil, 0, fmt.Errorf("request %w: %d bytes, the limit is %d", ErrTooLarge, n, MaxRequest)
	}
	if !admit(int(n)) {
		return nil, 0, errOverLimit
	}
	req = make([]byte, n)
	_, err = io.ReadFull(r, req)
	return req, max, err
}

func answer(s Stream, status byte, body []byte) error {
	if err := s.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
		return err
	}
	var head [5]byte
	head[0] = status
	binary.BigEndian.PutUint32(head[1:], uint32(len(body)))
	if _, err := s.Write(append(head[:], body...)); err != nil {
		return err
	}
	return s.CloseWrite()
}
