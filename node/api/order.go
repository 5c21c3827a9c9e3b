package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Ordered is one event of the order, as a node gave it to its ledger.
type Ordered struct {
	Index uint64   `json:"index"`
	Round uint64   `json:"round"`        // in which it was received
	Event string   `json:"event"`        // its hash, in hexadecimal
	Site  string   `json:"site"`         // of its creator
	Time  int64    `json:"time"`         // consensus time, ns since the Unix epoch
	At    int64    `json:"at,omitempty"` // when this node ordered it, ns by its clock; 0: before it was started
	Tx    []string `json:"tx,omitempty"` // IDs of its transactions
}

// Ping is how long an empty transaction took to be ordered.
type Ping struct {
	ID        string `json:"id"` // of the transaction
	Index     uint64 `json:"index"`
	Round     uint64 `json:"round"`
	Submitted int64  `json:"submitted"` // ns since the Unix epoch, by the clock of this node
	Ordered   int64  `json:"ordered"`   // the same, when it was ordered at this node
}

// Took is the time from submitted to ordered at the node that was asked.
func (p Ping) Took() time.Duration { return time.Duration(p.Ordered - p.Submitted) }

// Now, as the first index of a Watch, means: what is ordered from now on.
const Now = ^uint64(0)

// Order lets people look at the order itself.
type Order interface {
	// Ping submits an empty transaction and waits until it is ordered here.
	Ping(ctx context.Context) (Ping, error)
	// Watch tells what is ordered, from an index on, until ctx ends or tell fails.
	// Of what was ordered before, a node remembers the last few thousand events.
	// It is told in bunches, a little late: At is when it happened.
	Watch(ctx context.Context, from uint64, tell func([]Ordered) error) error
}

// Ping implements Order.
func (c *Client) Ping(ctx context.Context) (p Ping, err error) {
	return p, c.call(ctx, "POST", "/v1/ledger/ping", struct{}{}, &p, nil)
}

// Watch implements Order. A node that ends is an error.
func (c *Client) Watch(ctx context.Context, from uint64, tell func([]Ordered) error) error {
	q := ""
	if from != Now {
		q = "?from=" + strconv.FormatUint(from, 10)
	}
	type line struct {
		Line
		Ordered []Ordered `json:"ordered"`
	}
	return lines(ctx, c, "GET", "/v1/ledger/order"+q, nil, "watch the order", "the node went away: see its log", func(l *line) (more bool, err error) {
		if l.Error != "" {
			return false, &RemoteError{l.Error}
		}
		return true, tell(l.Ordered)
	})
}

// serveWatch writes lines of {"ordered":[...]} until the reader goes away.
func serveWatch(b Backend) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from, enc := Now, json.NewEncoder(w)
		if q := r.URL.Query().Get("from"); q != "" {
			var err error
			if from, err = strconv.ParseUint(q, 10, 64); err != nil {
				last(enc, nil, fmt.Errorf("read request: %q is not an index", q))
				return
			}
		}
		ctl := http.NewResponseController(w)
		_ = ctl.Flush() // who asks knows that the watch has begun
		var line bytes.Buffer
		err := b.Watch(r.Context(), from, func(evs []Ordered) error {
			line.Reset()
			if err := json.NewEncoder(&line).Encode(map[string]any{"ordered": evs}); err != nil {
				return err
			}
			if _, err := w.Write(line.Bytes()); err != nil {
				return err
			}
			return ctl.Flush()
		})
		if err != nil && r.Context().Err() == nil {
			last(enc, nil, err)
		}
	}
}
