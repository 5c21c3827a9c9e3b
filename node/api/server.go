package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// maxRequest bounds the body of a request, in bytes.
const maxRequest = 1 << 20

// Serve has requests on the socket answered until ctx ends. A socket left by a
// process that has ended is replaced.
func Serve(ctx context.Context, path string, h http.Handler, log *slog.Logger) error {
	l, err := listen(path)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket: %w", err)
	}
	return nil
}

// listen opens the socket for its owner only. It is bound through the directory's
// descriptor, since the name of a socket may have only 107 bytes.
func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace control socket: %w", err)
	}
	dir, short, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.Listen("unix", short)
	if err == nil {
		err = os.Chmod(path, 0o600) // the directory is its owner's alone, too
	}
	if err != nil {
		return nil, fmt.Errorf("open control socket %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l, nil
}

// shorten names a file through an open descriptor of its directory, to be closed
// after use.
func shorten(path string) (*os.File, string, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, "", fmt.Errorf("open control socket: %w", err)
	}
	return dir, fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), nil
}

// Handler is the API as HTTP.
func Handler(b Backend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", plain(func(r *http.Request) (any, error) { return b.Status(r.Context()) }))
	mux.HandleFunc("GET /v1/ledger", plain(func(r *http.Request) (any, error) { return b.Ledger(r.Context()) }))
	mux.HandleFunc("POST /v1/ledger/ping", task(func(ctx context.Context, _ string, _ struct{}, _ Tell) (any, error) { return b.Ping(ctx) }))
	mux.HandleFunc("GET /v1/ledger/order", serveWatch(b))
	serveMembers(mux, b)
	serveAudit(mux, b)
	mux.HandleFunc("GET /v1/images", plain(func(r *http.Request) (any, error) { return b.ListImages(r.Context()) }))
	mux.HandleFunc("POST /v1/images", task(func(ctx context.Context, _ string, q AddImage, t Tell) (any, error) {
		return b.AddImage(ctx, q, t)
	}))
	mux.HandleFunc("POST /v1/images/{name}/fetch", task(func(ctx context.Context, name string, _ struct{}, t Tell) (any, error) {
		return b.FetchImage(ctx, name, t)
	}))
	mux.HandleFunc("DELETE /v1/images/{name}", plain(func(r *http.Request) (any, error) {
		return b.RemoveImage(r.Context(), r.PathValue("name"))
	}))
	mux.HandleFunc("GET /v1/machines", plain(func(r *http.Request) (any, error) { return b.ListMachines(r.Context()) }))
	mux.HandleFunc("POST /v1/machines", task(func(ctx context.Context, _ string, q RunMachine, t Tell) (any, error) {
		return b.RunMachine(ctx, q, t)
	}))
	mux.HandleFunc("POST /v1/machines/{name}/stop", task(func(ctx context.Context, name string, _ struct{}, _ Tell) (any, error) {
		return b.StopMachine(ctx, name)
	}))
	mux.HandleFunc("POST /v1/machines/{name}/start", task(func(ctx context.Context, name string, _ struct{}, _ Tell) (any, error) {
		return b.StartMachine(ctx, name)
	}))
	mux.HandleFunc("POST /v1/machines/{name}/migrate", task(func(ctx context.Context, name string, q Migrate, t Tell) (any, error) {
		q.Name = name
		return b.Migrate(ctx, q, t)
	}))
	mux.HandleFunc("DELETE /v1/machines/{name}/move", plain(func(r *http.Request) (any, error) {
		return b.CancelMove(r.Context(), r.PathValue("name"))
	}))
	mux.HandleFunc("GET /v1/machines/{name}/why", plain(func(r *http.Request) (any, error) { return b.Why(r.Context(), r.PathValue("name")) }))
	mux.HandleFunc("DELETE /v1/machines/{name}", plain(func(r *http.Request) (any, error) {
		return nil, b.RemoveMachine(r.Context(), r.PathValue("name"))
	}))
	handleLaw(mux, b)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // one of an earlier request may still stand
		mux.ServeHTTP(w, r)
	})
}

// plain answers with one Line.
func plain(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		last(json.NewEncoder(w), v, err)
	}
}

// task answers with progress, then with one last Line.
func task[Q any](f func(ctx context.Context, name string, q Q, tell Tell) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		enc := json.NewEncoder(w)
		var q Q
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil {
			last(enc, nil, fmt.Errorf("read request: %w", err))
			return
		}
		out := newTeller(enc, http.NewResponseController(w))
		v, err := f(r.Context(), r.PathValue("name"), q, out.tell)
		out.end()
		last(enc, v, err)
	}
}

// teller writes progress in a goroutine of its own: a task must not wait for
// someone who does not read. What such a one misses is lost, but for the result.
type teller struct {
	mu    sync.Mutex
	lines chan Progress // nil after the end
	done  chan struct{}
	ctl   *http.ResponseController
}

const (
	maxUntold  = 64               // lines of progress that wait for the reader
	readWithin = 10 * time.Second // for the reader to take what waits at the end
)

func newTeller(enc *json.Encoder, ctl *http.ResponseController) *teller {
	t := &teller{lines: make(chan Progress, maxUntold), done: make(chan struct{}), ctl: ctl}
	lines := t.lines
	go func() {
		defer close(t.done)
		for p := range lines {
			_ = enc.Encode(Line{Progress: &p})
			_ = ctl.Flush()
		}
	}()
	return t
}

func (t *teller) tell(p Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case t.lines <- p:
	default:
	}
}

// end waits until all is written, or the reader has had its time. Nothing is
// written after it.
func (t *teller) end() {
	t.mu.Lock()
	close(t.lines)
	t.lines = nil
	t.mu.Unlock()
	_ = t.ctl.SetWriteDeadline(time.Now().Add(readWithin))
	<-t.done
}

func last(enc *json.Encoder, v any, err error) {
	if err != nil {
		_ = enc.Encode(Line{Error: oneLine(err)})
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		_ = enc.Encode(Line{Error: "encode answer: " + oneLine(err)})
		return
	}
	_ = enc.Encode(Line{Result: b})
}

// oneLine keeps an error on one line, for the terminal and for logs.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
