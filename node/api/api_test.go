package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// backend is a node that does what a test says.
type backend struct {
	Backend
	migrate func(ctx context.Context, r Migrate, tell Tell) (Report, error)
	start   func(ctx context.Context, name string) (Machine, error)
}

func (b *backend) Migrate(ctx context.Context, r Migrate, tell Tell) (Report, error) {
	return b.migrate(ctx, r, tell)
}

func (b *backend) StartMachine(ctx context.Context, name string) (Machine, error) {
	return b.start(ctx, name)
}

func (b *backend) Ledger(context.Context) (*Ledger, error) {
	return nil, errors.New("two\nlines")
}

func (b *backend) RemoveImage(_ context.Context, name string) (RemovedImage, error) {
	if name != "a/b" {
		return RemovedImage{}, errors.New("name came as " + name)
	}
	return RemovedImage{Name: name, Withdrawn: true}, nil
}

// serve runs a server and returns the path of its socket, which is longer than a
// socket's name may be.
func serve(t *testing.T, b Backend) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), strings.Repeat("d", 60), strings.Repeat("e", 60))
	path = filepath.Join(mkdir(t, path), "control.sock")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	l, err := listen(path) // so that it is there when serve returns
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: Handler(b), BaseContext: func(net.Listener) context.Context { return ctx }}
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() {
		cancel()
		srv.Close()
		<-ended
	})
	return path
}

func mkdir(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTaskTellsItsProgressAndThenItsResult(t *testing.T) {
	var asked Migrate
	c := NewClient(serve(t, &backend{migrate: func(_ context.Context, r Migrate, tell Tell) (Report, error) {
		asked = r
		for i := range int64(3) {
			tell(Progress{Phase: "memory", Done: i, Total: 3})
		}
		return Report{Machine: r.Name, Destination: "bob", Bytes: Bytes{ByOrigin: map[string]int64{"zero": 4096}}}, nil
	}}))
	var told []int64
	rep, err := c.Migrate(t.Context(), Migrate{Name: "web1", To: "bob", MaxDowntime: 100}, func(p Progress) {
		told = append(told, p.Done)
	})
	if err != nil || rep.Machine != "web1" || rep.Destination != "bob" || rep.Bytes.ByOrigin["zero"] != 4096 {
		t.Errorf("report %+v, %v", rep, err)
	}
	if asked != (Migrate{Name: "web1", To: "bob", MaxDowntime: 100}) {
		t.Errorf("asked %+v", asked)
	}
	if !slices.Equal(told, []int64{0, 1, 2}) {
		t.Errorf("told %v", told)
	}
}

func TestErrorsComeInOneLineAndNamesInOnePiece(t *testing.T) {
	c := NewClient(serve(t, &backend{start: func(_ context.Context, name string) (Machine, error) {
		return Machine{}, errors.New("machine " + name + " runs already")
	}}))
	var remote *RemoteError
	if _, err := c.Ledger(t.Context()); !errors.As(err, &remote) || remote.Message != "two lines" {
		t.Errorf("ledger: %v", err)
	}
	if _, err := c.StartMachine(t.Context(), "a b"); !errors.As(err, &remote) || remote.Message != "machine a b runs already" {
		t.Errorf("start: %v", err)
	}
	if gone, err := c.RemoveImage(t.Context(), "a/b"); err != nil || gone != (RemovedImage{Name: "a/b", Withdrawn: true}) {
		t.Errorf("remove image: %+v, %v", gone, err)
	}
}

func TestRequestsThatCannotBeReadAreNotCarriedOut(t *testing.T) {
	path := serve(t, &backend{
		migrate: func(context.Context, Migrate, Tell) (Report, error) {
			t.Error("it was carried out")
			return Report{}, nil
		},
	})
	for _, r := range []struct{ what, body, want string }{
		{"too large", `{"to":"` + strings.Repeat("x", maxRequest) + `"}`, "too large"},
		{"an unknown field", `{"too":"bob"}`, `unknown field "too"`},
		{"no JSON", `to bob`, "invalid character"},
		{"nothing", ``, "EOF"},
	} {
		resp, err := NewClient(path).http.Post("http://dcnode/v1/machines/web1/migrate", "application/json", strings.NewReader(r.body))
		if err != nil {
			t.Errorf("%s: %v", r.what, err)
			continue
		}
		var l Line
		err = json.NewDecoder(resp.Body).Decode(&l)
		resp.Body.Close()
		if err != nil || !strings.Contains(l.Error, r.want) || !strings.HasPrefix(l.Error, "read request") {
			t.Errorf("%s: %+v, %v", r.what, l, err)
		}
	}
}

// A terminal that was stopped does not read. The task must not wait for it.
func TestTaskDoesNotWaitForAReader(t *testing.T) {
	told := make(chan struct{})
	path := serve(t, &backend{migrate: func(_ context.Context, _ Migrate, tell Tell) (Report, error) {
		defer close(told)
		for range 2000 { // more than any socket holds
			tell(Progress{Phase: strings.Repeat("x", 1<<10)})
		}
		return Report{}, nil
	}})
	conn, err := NewClient(path).http.Transport.(*http.Transport).DialContext(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{}`
	req, err := http.NewRequest(http.MethodPost, "http://dcnode/v1/machines/web1/migrate", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	select {
	case <-told:
	case <-time.After(5 * time.Second):
		t.Fatal("the task waits for one who does not read")
	}
	// Who reads after all gets the end of it.
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var last Line
	for d := json.NewDecoder(resp.Body); last.Result == nil; {
		last = Line{}
		if err := d.Decode(&last); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTaskHearsThatItsClientHasGone(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan error, 1)
	late := make(chan Tell, 1)
	c := NewClient(serve(t, &backend{migrate: func(ctx context.Context, _ Migrate, tell Tell) (Report, error) {
		close(begun)
		<-ctx.Done()
		late <- tell
		ended <- ctx.Err()
		return Report{}, ctx.Err()
	}}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if _, err := c.Migrate(ctx, Migrate{Name: "web1"}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("the client says %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the task did not hear of it")
	}
	(<-late)(Progress{Phase: "what goes on may still tell of it"})
}

func TestClientSaysWhyNobodyAnswers(t *testing.T) {
	dir := mkdir(t, t.TempDir())
	_, err := NewClient(filepath.Join(dir, "control.sock")).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no node runs in "+dir) {
		t.Errorf("no socket: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(dir, "control.sock")
	if err := Serve(ctx, path, Handler(&backend{}), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(path).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("socket of a node that has ended: %v", err)
	}
}
