package wan

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// network runs a network of alice, bob and carol, and closes it after the test.
func network(t *testing.T, c Config) *Network {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip("SKIPPED:", err)
	}
	c.Sites = []Site{{Name: "alice"}, {Name: "bob"}, {Name: "carol"}}
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Run(context.Background()) }()
	t.Cleanup(func() {
		if err := errors.Join(n.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
	return n
}

// connect opens a TCP connection from one site to another.
func connect(t *testing.T, n *Network, from, to string) (dialed, accepted net.Conn) {
	t.Helper()
	var listener net.Listener
	if err := n.Enter(to, func() (err error) {
		listener, err = net.Listen("tcp4", net.JoinHostPort(n.Addr(to).String(), "0"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	// Connecting at once, on the thread that is at the site, and not in
	// goroutines of the dialer's.
	target := netip.MustParseAddrPort(listener.Addr().String())
	if err := n.Enter(from, func() (err error) {
		dialed, err = net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(target))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(15 * time.Second)
	for _, conn := range []net.Conn{dialed, accepted} {
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(deadline); err != nil {
			t.Fatal(err)
		}
	}
	return dialed, accepted
}

func TestRoundTripTakesTwiceTheDelay(t *testing.T) {
	n := network(t, Config{Rate: 100 * mbit, Link: Link{OneWay: 5 * ms}})
	alice, bob := connect(t, n, "alice", "bob")
	go io.Copy(bob, bob)
	var trips []time.Duration
	for range 100 {
		start := time.Now()
		if _, err := alice.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(alice, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		trips = append(trips, time.Since(start))
	}
	slices.Sort(trips)
	t.Logf("round trips: least %v, median %v, 90th %v, most %v", trips[0], trips[50], trips[90], trips[99])
	if trips[0] < 10*ms || trips[50] > 13*ms {
		t.Errorf("round trip of %v to %v (median), want 10 ms and little more", trips[0], trips[50])
	}
}

func TestTCPFillsTheLinkAndNoMore(t *testing.T) {
	n := network(t, Config{Rate: 100 * mbit, Link: Link{OneWay: 5 * ms}})
	alice, bob := connect(t, n, "alice", "bob")
	go io.Copy(alice, endless{})
	buffer := make([]byte, 1<<20)
	total := func(d time.Duration) (bytes int64, took time.Duration) {
		start := time.Now()
		for time.Since(start) < d {
			k, err := bob.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			bytes += int64(k)
		}
		return bytes, time.Since(start)
	}
	total(500 * ms) // until TCP is up to speed
	before := n.Counters("alice", "bob")
	bytes, took := total(2 * time.Second)
	after := n.Counters("alice", "bob")
	rate := float64(bytes) * 8 / took.Seconds() / mbit
	wire := float64(after.Bytes-before.Bytes) * 8 / took.Seconds() / mbit
	t.Logf("%.1f Mbit/s of payload, %.1f on the wire, %d packets dropped", rate, wire, after.Dropped)
	if rate < 80 || wire > 101 {
		t.Errorf("%.1f Mbit/s of payload and %.1f on the wire of a link of 100", rate, wire)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestCutLinkCarriesNothingUntilItHeals(t *testing.T) {
	n := network(t, Config{Link: Link{OneWay: ms}})
	alice, bob := connect(t, n, "alice", "bob")
	if err := n.Cut("bob", "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := bob.SetReadDeadline(time.Now().Add(100 * ms)); err != nil {
		t.Fatal(err)
	}
	if _, err := bob.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read over a cut link: %v", err)
	}
	carol, _ := connect(t, n, "carol", "bob") // other links are whole
	carol.Close()
	if err := n.Heal("alice", "bob"); err != nil {
		t.Fatal(err)
	}
	if err := bob.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := bob.Read(make([]byte, 1)); err != nil {
		t.Errorf("read over a healed link: %v", err)
	}
	if c := n.Counters("alice", "bob"); c.Lost == 0 {
		t.Errorf("counted %+v", c)
	}
}

func TestLossyLinkStillCarriesTCP(t *testing.T) {
	n := network(t, Config{Rate: 100 * mbit})
	if err := n.SetLink("alice", "bob", Link{OneWay: ms, Loss: 0.01}); err != nil {
		t.Fatal(err)
	}
	alice, bob := connect(t, n, "alice", "bob")
	go func() {
		_, _ = io.CopyN(alice, endless{}, 4<<20)
		alice.Close()
	}()
	got, err := io.Copy(io.Discard, bob)
	c := n.Counters("alice", "bob")
	if err != nil || got != 4<<20 {
		t.Errorf("%d bytes arrived, %v", got, err)
	}
	if share := float64(c.Lost) / float64(c.Packets+c.Lost); c.Lost == 0 || share > 0.03 || c.Packets < 2800 {
		t.Errorf("%d of %d packets lost, want about 1 %% of packets of 1500 bytes", c.Lost, c.Packets)
	}
}

func TestCommandsRunAtTheirSite(t *testing.T) {
	n := network(t, Config{})
	cmd, err := n.Command(t.Context(), "bob", "cat", "/proc/net/fib_trie")
	if err != nil {
		t.Skip("SKIPPED:", err)
	}
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), n.Addr("bob").String()) || strings.Contains(string(out), n.Addr("alice").String()) {
		t.Errorf("%v: %s", err, out)
	}
	var started strings.Builder
	direct := exec.Command("cat", "/proc/net/fib_trie")
	direct.Stdout = &started
	if err := n.Start("bob", direct); err != nil {
		t.Fatal(err)
	}
	if err := direct.Wait(); err != nil || started.String() != string(out) {
		t.Errorf("Start and Command differ: %v: %s", err, started.String())
	}
	if err := n.Start("dave", exec.Command("true")); err == nil {
		t.Error("started something at a site that does not exist")
	}
}

func TestCloseEndsWhatStillRunsAndLeavesNoNamespace(t *testing.T) {
	n := network(t, Config{})
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "sleep 600 & sleep 600")
	if err := n.Start("alice", cmd); err != nil {
		t.Fatal(err)
	}
	space, err := os.Readlink("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/net")
	if err != nil || space == before {
		t.Fatalf("the command is in %q, %v", space, err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.String() != "signal: killed" {
		t.Errorf("ended with %v", err)
	}
	if left := inNamespace(t, space); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
	if err := n.Enter("alice", func() error { return nil }); err == nil {
		t.Error("entered a site that is gone")
	}
}

// inNamespace finds the threads and open files that keep a namespace alive.
func inNamespace(t *testing.T, space string) []string {
	t.Helper()
	var left []string
	processes, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, process := range processes {
		for _, kind := range []string{"/task", "/fd"} {
			entries, _ := os.ReadDir("/proc/" + process.Name() + kind)
			for _, entry := range entries {
				path := "/proc/" + process.Name() + kind + "/" + entry.Name()
				if kind == "/task" {
					path += "/ns/net"
				}
				if target, err := os.Readlink(path); err == nil && target == space {
					left = append(left, path)
				}
			}
		}
	}
	return left
}

func TestProcessesOfADeadOwnerAreEnded(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip("SKIPPED:", err)
	}
	owner := exec.Command("true")
	if err := owner.Run(); err != nil {
		t.Fatal(err)
	}
	orphan, other := exec.Command("sleep", "600"), exec.Command("sleep", "600")
	orphan.Env = []string{markName + "=" + pidNamespace() + "." + strconv.Itoa(owner.Process.Pid) + ".1"}
	other.Env = []string{newMark()} // of this process, which lives
	for _, cmd := range []*exec.Cmd{orphan, other} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	defer other.Wait()
	defer other.Process.Kill()
	n, err := New(Config{Sites: []Site{{Name: "alice"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := orphan.Wait(); err == nil || orphan.ProcessState.String() != "signal: killed" {
		t.Errorf("the orphan ended with %v", err)
	}
	if startTime(other.Process.Pid) == "" {
		t.Error("a process whose owner lives was ended")
	}
}

func TestNetworksWithTheSameAddressesRunSideBySide(t *testing.T) {
	one, two := network(t, Config{}), network(t, Config{})
	connect(t, one, "alice", "bob")
	connect(t, two, "alice", "bob")
	if a, b := one.Counters("alice", "bob"), two.Counters("alice", "bob"); a.Packets < 2 || b.Packets < 2 {
		t.Errorf("counted %+v and %+v", a, b)
	}
	if one.Counters("alice", "carol").Packets != 0 {
		t.Error("carol got what was bob's")
	}
}
