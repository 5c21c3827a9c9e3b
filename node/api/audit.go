package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// LogQuery says which entries of the log are wanted.
type LogQuery struct {
	From    uint64 // first index; Now: the newest N, or what comes from now on if N is 0
	N       int    // at most so many of what is there already; 0: all
	Follow  bool   // go on with what comes
	Machine string // about this machine only
	Kind    string // of this kind only
}

// LogEntry is one transaction and what came of it, or something that fell due, or a
// stretch of which the node knows nothing.
type LogEntry struct {
	Index   uint64 `json:"index"`           // place of its event in the order
	Until   uint64 `json:"until,omitempty"` // of a gap: the last index of which nothing is known
	N       int    `json:"n"`               // which transaction of that event; -1: it fell due
	Round   uint64 `json:"round,omitempty"`
	Time    int64  `json:"time"`           // consensus time, ns since the Unix epoch
	Site    string `json:"site,omitempty"` // of the author, as it was called then
	Event   string `json:"event,omitempty"`
	Kind    string `json:"kind"`
	Machine string `json:"machine,omitempty"`
	Image   string `json:"image,omitempty"`
	Member  string `json:"member,omitempty"`
	Account string `json:"account,omitempty"`
	Text    string `json:"text"`              // one plain sentence
	Refused string `json:"refused,omitempty"` // why it had no effect
}

// Event is one event of the order with all that it carried.
type Event struct {
	Index        uint64             `json:"index"`
	Round        uint64             `json:"round,omitempty"`
	Time         int64              `json:"time,omitempty"` // consensus time, ns since the Unix epoch
	Site         string             `json:"site,omitempty"` // of its creator
	Event        string             `json:"event,omitempty"`
	Transactions []EventTransaction `json:"transactions"` // and what fell due before them
}

// EventTransaction is one transaction of an event, as it was said.
type EventTransaction struct {
	LogEntry
	Seq  uint64       `json:"seq,omitempty"`  // its author's number for it
	Sigs []ledger.Sig `json:"sigs,omitempty"` // of the account that speaks
	Body ledger.Body  `json:"body,omitempty"`
}

// Audit lets people look at what was agreed, and prove it to others.
type Audit interface {
	// Log tells the log in bunches, in order. With Follow it ends with ctx only.
	Log(ctx context.Context, q LogQuery, tell func([]LogEntry) error) error
	// Event is one event of the order.
	Event(ctx context.Context, index uint64) (Event, error)
	// Certify makes a certificate of a machine's release with that epoch; 0: the last.
	Certify(ctx context.Context, machine string, epoch uint64) ([]byte, error)
}

// certifyRequest is the body of a request for a certificate.
type certifyRequest struct {
	Epoch uint64 `json:"epoch,omitempty"`
}

// Log implements Audit.
func (c *Client) Log(ctx context.Context, q LogQuery, tell func([]LogEntry) error) error {
	v := url.Values{"machine": {q.Machine}, "kind": {q.Kind}, "n": {strconv.Itoa(q.N)}}
	if q.From != Now {
		v.Set("from", strconv.FormatUint(q.From, 10))
	}
	if q.Follow {
		v.Set("follow", "1")
	}
	type line struct {
		Line
		Entries []LogEntry `json:"entries"`
	}
	return lines(ctx, c, "GET", "/v1/ledger/log?"+v.Encode(), nil, "read the log", "the node went away: see its log", func(l *line) (more bool, err error) {
		switch {
		case l.Error != "":
			return false, &RemoteError{l.Error}
		case l.Entries == nil:
			return false, nil
		}
		return true, tell(l.Entries)
	})
}

// RawEvent is an Event as the node writes it: what is in a transaction depends on its kind.
func (c *Client) RawEvent(ctx context.Context, index uint64) (e json.RawMessage, err error) {
	return e, c.call(ctx, "GET", "/v1/ledger/events/"+strconv.FormatUint(index, 10), nil, &e, nil)
}

// Certify implements Audit.
func (c *Client) Certify(ctx context.Context, machine string, epoch uint64) (b []byte, err error) {
	return b, c.call(ctx, "POST", "/v1/machines/"+url.PathEscape(machine)+"/certify", certifyRequest{epoch}, &b, nil)
}

// serveLog writes lines of {"entries":[...]} and an empty result at the end.
func serveLog(b Backend) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		enc, ctl := json.NewEncoder(w), http.NewResponseController(w)
		q, err := readQuery(r.URL.Query())
		if err != nil {
			last(enc, nil, err)
			return
		}
		_ = ctl.Flush() // who asks knows that it has begun
		err = b.Log(r.Context(), q, func(entries []LogEntry) error {
			if err := enc.Encode(map[string]any{"entries": entries}); err != nil {
				return err
			}
			return ctl.Flush()
		})
		if r.Context().Err() == nil {
			last(enc, struct{}{}, err)
		}
	}
}

func readQuery(v url.Values) (LogQuery, error) {
	q := LogQuery{From: Now, Machine: v.Get("machine"), Kind: v.Get("kind"), Follow: v.Get("follow") != ""}
	var err error
	if s := v.Get("from"); s != "" {
		if q.From, err = strconv.ParseUint(s, 10, 64); err != nil {
			return q, fmt.Errorf("read request: %q is not an index", s)
		}
	}
	if s := v.Get("n"); s != "" {
		if q.N, err = strconv.Atoi(s); err != nil || q.N < 0 {
			return q, fmt.Errorf("read request: %q is not a number of entries", s)
		}
	}
	return q, nil
}

func serveEvent(b Backend) http.HandlerFunc {
	return plain(func(r *http.Request) (any, error) {
		index, err := strconv.ParseUint(r.PathValue("index"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read request: %q is not an index", r.PathValue("index"))
		}
		return b.Event(r.Context(), index)
	})
}

func serveCertify(b Backend) http.HandlerFunc {
	return task(func(ctx context.Context, name string, q certifyRequest, _ Tell) (any, error) {
		return b.Certify(ctx, name, q.Epoch)
	})
}

// serveAudit adds the API of an Audit.
func serveAudit(mux *http.ServeMux, b Backend) {
	mux.HandleFunc("GET /v1/ledger/log", serveLog(b))
	mux.HandleFunc("GET /v1/ledger/events/{index}", serveEvent(b))
	mux.HandleFunc("POST /v1/machines/{name}/certify", serveCertify(b))
}
