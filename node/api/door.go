package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"
)

// Door is the API of a data directory whose node opens itself again now and then: with
// another key, or from a checkpoint of the others. Requests that come meanwhile wait for
// the node that comes next. The zero value has none yet.
type Door struct {
	mu    sync.Mutex
	room  *room
	comes chan struct{} // closed when the next room is there; nil: nobody waits
}

// room is one node behind the door.
type room struct {
	ctx     context.Context // ends when the node begins to end
	handler http.Handler
}

// knockFor is how long a request waits for a node.
const knockFor = 30 * time.Second

var (
	errNobodyComes = errors.New("this node is opening itself again, and that takes long: ask again, or see its log")
	errLeftRoom    = errors.New("this node stops or opens itself again: see what has become of it and ask again")
)

// Open lets requests in to a node, from now on and until ctx ends, which should be as
// soon as the node begins to end.
func (d *Door) Open(ctx context.Context, b Backend) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = &room{ctx, Handler(b)}
	if d.comes != nil {
		close(d.comes)
		d.comes = nil
	}
}

// now is the room that is open, or what tells of the next one.
func (d *Door) now() (*room, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room != nil && d.room.ctx.Err() == nil {
		return d.room, nil
	}
	if d.comes == nil {
		d.comes = make(chan struct{})
	}
	return nil, d.comes
}

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	late := time.NewTimer(knockFor)
	defer late.Stop()
	for {
		in, comes := d.now()
		if in != nil {
			ctx, cancel := context.WithCancelCause(r.Context())
			defer cancel(nil)
			defer context.AfterFunc(in.ctx, func() { cancel(errLeftRoom) })()
			in.handler.ServeHTTP(w, r.WithContext(ctx))
			return
		}
		select {
		case <-comes:
		case <-late.C:
			last(json.NewEncoder(w), nil, errNobodyComes)
			return
		case <-r.Context().Done():
			return
		}
	}
}
