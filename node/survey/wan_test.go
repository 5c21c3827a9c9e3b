package survey

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/testnet/wan"
)

var wide = flag.Bool("wan", false, "measure emulated links of 10, 100 and 1000 Mbit/s and compare with transfers over them (minutes)")

const siteVariable = "DCNODE_SURVEY_SITE" // makes this program a member: see member

func TestMain(m *testing.M) {
	if line := os.Getenv(siteVariable); line != "" {
		if err := member(line); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// place is what a member is told in its environment.
type place struct {
	Name   string // "a" or "b"
	Listen string
	Boot   []string
}

// outcome is a member's answer to a command.
type outcome struct {
	Path  Path
	Bytes int64
	Took  time.Duration
	Err   string
}

func wanKey(name string) (crypto.PrivKey, peer.ID, error) {
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, name)
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, "", err
	}
	id, err := peer.IDFromPrivateKey(key)
	return key, id, err
}

const bulk = "/bulk/1"

// member is one site's process: it serves, and does what it is told on its input.
func member(line string) error {
	var at place
	if err := json.Unmarshal([]byte(line), &at); err != nil {
		return err
	}
	other := map[string]string{"a": "b", "b": "a"}[at.Name]
	key, self, err := wanKey(at.Name)
	if err != nil {
		return err
	}
	_, far, err := wanKey(other)
	if err != nil {
		return err
	}
	o, err := gossip.New(gossip.Config{
		Key: key, Network: "survey", Listen: []string{at.Listen}, Bootstrap: at.Boot,
		Members: func() []peer.ID { return []peer.ID{self, far} },
	})
	if err != nil {
		return err
	}
	defer o.Close()
	New(o, Config{Fresh: 1, PerMinute: 1 << 40}).Serve() // remembers nothing, and has patience
	o.Handle(bulk, func(_ context.Context, s gossip.Stream) {
		piece := make([]byte, 64<<10)
		_, n, err := readWord(s)
		for ; err == nil && n > 0; n -= int64(len(piece)) {
			_, err = s.Write(piece)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go o.Run(ctx)
	for _, err := o.RTT(ctx, far); err != nil && at.Boot != nil; _, err = o.RTT(ctx, far) {
		time.Sleep(50 * time.Millisecond) // the other one begins at the same time
	}
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var r outcome
		switch in.Text() {
		case "measure":
			r.Path, err = New(o, Config{}).Measure(ctx, far)
		case "bulk":
			r, err = transfer(ctx, o, far)
		}
		if err != nil {
			r.Err = err.Error()
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func transfer(ctx context.Context, o *gossip.Overlay, from peer.ID) (outcome, error) {
	s, err := o.Open(ctx, from, bulk)
	if err != nil {
		return outcome{}, err
	}
	defer s.Close()
	began := time.Now()
	if err := writeWord(s, wordGrant, 64<<20); err != nil {
		return outcome{}, err
	}
	n, err := io.Copy(io.Discard, s)
	return outcome{Bytes: n, Took: time.Since(began)}, err
}

// far is a member in a process of its own.
type far struct {
	in  io.WriteCloser
	out *json.Decoder
}

func (f *far) ask(t *testing.T, command string) outcome {
	t.Helper()
	var r outcome
	if _, err := fmt.Fprintln(f.in, command); err != nil {
		t.Fatal(err)
	}
	if err := f.out.Decode(&r); err != nil {
		t.Fatal(err)
	}
	if r.Err != "" {
		t.Fatalf("%s: %s", command, r.Err)
	}
	return r
}

func startFar(t *testing.T, n *wan.Network, at place) *far {
	t.Helper()
	line, err := json.Marshal(at)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), siteVariable+"="+string(line))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(at.Name, cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	return &far{in, json.NewDecoder(out)}
}

// link makes two members with a link between them.
func link(t *testing.T, rate int64, oneWay time.Duration) *far {
	t.Helper()
	n, err := wan.New(wan.Config{Sites: []wan.Site{{Name: "a"}, {Name: "b"}}, Rate: rate, Link: wan.Link{OneWay: oneWay}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Run(context.Background()) }()
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
	_, id, err := wanKey("a")
	if err != nil {
		t.Fatal(err)
	}
	listen := func(site string) string { return fmt.Sprintf("/ip4/%s/tcp/4001", n.Addr(site)) }
	startFar(t, n, place{Name: "a", Listen: listen("a")})
	return startFar(t, n, place{Name: "b", Listen: listen("b"), Boot: []string{listen("a") + "/p2p/" + id.String()}})
}

func TestMeasuredBandwidthIsWhatATransferGets(t *testing.T) {
	if !*wide {
		t.Skip("takes minutes and a quiet host: run with -wan")
	}
	if err := wan.Available(); err != nil {
		t.Skip("SKIPPED:", err)
	}
	const mbit = 1_000_000
	inMbit := func(rate float64) float64 { return rate * 8 / mbit }
	var errs []float64
	for _, rate := range []int64{10, 100, 1000} {
		for _, rtt := range []time.Duration{2 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
			t.Run(fmt.Sprintf("%d Mbit/s %v", rate, rtt), func(t *testing.T) {
				b := link(t, rate*mbit, rtt/2)
				var measured, away, trips, took []float64
				for i := range 6 {
					began := time.Now()
					p := b.ask(t, "measure").Path
					if i == 0 {
						continue // the connection was just made
					}
					took = append(took, time.Since(began).Seconds())
					measured, away = append(measured, inMbit(float64(p.Bandwidth))), append(away, inMbit(float64(p.Away)))
					trips = append(trips, p.RTT.Seconds()*1000)
				}
				var real []float64
				for range map[bool]int{true: 1, false: 3}[rate == 10] {
					r := b.ask(t, "bulk")
					real = append(real, inMbit(float64(r.Bytes)/r.Took.Seconds()))
				}
				var off []float64
				for _, m := range measured {
					off = append(off, math.Abs(m/median(real)-1))
				}
				if rate <= 100 {
					errs = append(errs, off...)
				}
				t.Logf("| %d | %v | %.1f | %.1f (%.1f–%.1f) | %.1f | %.1f | %.1f %% | %.2f s |", rate, rtt, median(trips),
					median(measured), slices.Min(measured), slices.Max(measured), median(away), median(real), 100*median(off), median(took))
			})
		}
	}
	if m := median(errs); m > 0.1 {
		t.Errorf("up to 100 Mbit/s the median error is %.1f %%", 100*m)
	} else {
		t.Logf("up to 100 Mbit/s the median error is %.1f %%", 100*m)
	}
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	if len(x) == 0 {
		return math.NaN()
	}
	return x[len(x)/2]
}
