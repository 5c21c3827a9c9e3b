package testnet

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/dcnode/dcnode/testnet/wan"
)

// network is where the sites are: a place for each, and the way between them.
type network interface {
	// listen is the multiaddr at which site i listens.
	listen(i int) string
	// start starts a command at site i.
	start(i int, cmd *exec.Cmd) error
	// describe says in a few words what the link is.
	describe() string
	// crossed is how many bytes have arrived over the link so far; -1: not known.
	crossed() int64
	// cut lets nothing pass between two sites until heal is called.
	cut(i, j int) (heal func() error, err error)
	close() error
}

// newNetwork is the emulated wide area, or loopback with the reason why.
func newNetwork(ctx context.Context, o Options) (network, error) {
	if o.Loopback {
		return loopback{"as asked"}, nil
	}
	if err := wan.Available(); err != nil {
		return loopback{strings.ReplaceAll(err.Error(), "\n", "; ")}, nil
	}
	c := wan.Config{Link: wan.Link{OneWay: o.Delay}, Rate: o.Rate}
	for i := range o.Members {
		c.Sites = append(c.Sites, wan.Site{Name: siteName(i)})
	}
	n, err := wan.New(c)
	if err != nil {
		return nil, fmt.Errorf("emulate a wide-area network: %w", err)
	}
	w := &wideArea{net: n, ended: make(chan error, 1), what: fmt.Sprintf("%.0f km (%v one way), %d Mbit/s, emulated over TUN devices",
		kilometres(o.Delay), o.Delay, o.Rate/1_000_000)}
	go func() { w.ended <- n.Run(context.WithoutCancel(ctx)) }()
	return w, nil
}

func siteName(i int) string { return fmt.Sprintf("dc%d", i+1) }

// kilometres of fibre that light takes d for: 200 a millisecond.
func kilometres(d time.Duration) float64 { return d.Seconds() * 200_000 }

// wideArea is the emulated network.
type wideArea struct {
	net   *wan.Network
	ended chan error
	what  string
}

func (w *wideArea) listen(i int) string {
	return fmt.Sprintf("/ip4/%s/tcp/4001", w.net.Addr(siteName(i)))
}

func (w *wideArea) start(i int, cmd *exec.Cmd) error { return w.net.Start(siteName(i), cmd) }
func (w *wideArea) describe() string                 { return w.what }
func (w *wideArea) crossed() int64                   { return w.net.Total().Bytes }

func (w *wideArea) cut(i, j int) (func() error, error) {
	a, b := siteName(i), siteName(j)
	return func() error { return w.net.Heal(a, b) }, w.net.Cut(a, b)
}

func (w *wideArea) close() error {
	err := w.net.Close()
	<-w.ended
	return err
}

// loopback puts all sites on this host, without a link in between.
type loopback struct{ why string }

func (loopback) listen(int) string                { return "/ip4/127.0.0.1/tcp/0" }
func (loopback) start(_ int, cmd *exec.Cmd) error { return cmd.Start() }
func (l loopback) describe() string {
	return "loopback, no distance and no rate emulated (" + l.why + ")"
}
func (loopback) crossed() int64 { return -1 }
func (loopback) cut(int, int) (func() error, error) {
	return nil, errors.New("loopback cannot be cut: run as root, so that a link is emulated")
}
func (loopback) close() error { return nil }
