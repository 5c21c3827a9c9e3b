// Package testnet brings up several sites on one machine: real dcnode processes,
// a wide-area link between them, a real guest, and an outside observer who
// believes only what the guest prints.
package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/dcnode/dcnode/node"
	"github.com/dcnode/dcnode/node/api"
)

// Site is one data centre: a dcnode process with a data directory of its own.
type Site struct {
	Name   string
	Dir    string
	Client *api.Client

	args   []string
	launch func(*exec.Cmd) error // starts a command at this site's place in the network
	mu     sync.Mutex
	proc   *exec.Cmd
	done   chan struct{} // closed when proc has ended
}

// Sites are the sites of one overlay.
type Sites struct {
	Dir  string // holds all that they write
	List []*Site
	net  network
}

// newSites makes identities, a roster and data directories for the sites.
func newSites(dir string, o Options, net network, qemu string) (*Sites, error) {
	s := &Sites{Dir: dir, net: net}
	var cards []node.Card
	for i := range o.Members {
		name := siteName(i)
		site := &Site{Name: name, Dir: filepath.Join(dir, name)}
		card, err := node.Init(site.Dir, name, "", 1, nil)
		if err != nil {
			return nil, err
		}
		cards = append(cards, card)
		site.Client = api.NewClient(filepath.Join(site.Dir, node.SocketFile))
		site.launch = func(cmd *exec.Cmd) error { return net.start(i, cmd) }
		site.args = []string{o.Program, "run", "--data", site.Dir, "--genesis", filepath.Join(dir, "genesis.json"), "--listen", net.listen(i)}
		if o.Kill != "" {
			site.args = append(site.args, "--resume-within", "5s") // who is killed does not come back
		}
		if qemu != "" {
			site.args = append(site.args, "--qemu", qemu)
		}
		s.List = append(s.List, site)
	}
	g, err := node.NewGenesis(cards, time.Now())
	if err != nil {
		return nil, err
	}
	return s, node.WriteGenesis(g, filepath.Join(dir, "genesis.json"), nil)
}

// up starts all sites and waits until each sees all others.
func (s *Sites) up(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 60*time.Second, errors.New("the sites do not find each other within a minute"))
	defer cancel()
	var boot []string
	for _, site := range s.List {
		if err := site.start(boot); err != nil {
			return err
		}
		st, err := site.await(ctx, func(api.Status) bool { return true })
		if err != nil {
			return err
		}
		if boot == nil {
			boot = st.Addrs
		}
	}
	for _, site := range s.List {
		if _, err := site.await(ctx, allSeen); err != nil {
			return err
		}
	}
	return nil
}

func allSeen(st api.Status) bool {
	for _, m := range st.Members {
		if !m.Connected {
			return false
		}
	}
	return true
}

// start runs the site's dcnode; its log goes to dcnode.log in its directory.
func (s *Site) start(boot []string) error { return s.startAs(boot, "") }

// startAs is start in a boot of the host of its own, unless that is empty.
func (s *Site) startAs(boot []string, bootID string) error {
	log, err := os.OpenFile(filepath.Join(s.Dir, "dcnode.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", s.Name, err)
	}
	defer log.Close()
	args := slices.Clone(s.args)
	if bootID != "" {
		args = append(args, "--boot-id", bootID)
	}
	for _, b := range boot {
		args = append(args, "--bootstrap", b)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.launch(cmd); err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	s.mu.Lock()
	s.proc, s.done = cmd, done
	s.mu.Unlock()
	return nil
}

// await asks the site for its status until good says yes.
func (s *Site) await(ctx context.Context, good func(api.Status) bool) (api.Status, error) {
	for {
		st, err := s.Client.Status(ctx)
		if err == nil && good(st) {
			return st, nil
		}
		select {
		case <-s.done:
			return st, fmt.Errorf("%s has ended: %s", s.Name, s.lastWords())
		case <-ctx.Done():
			return st, fmt.Errorf("%s: %w", s.Name, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lastWords is the end of the site's log.
func (s *Site) lastWords() string {
	b, err := os.ReadFile(filepath.Join(s.Dir, "dcnode.log"))
	if err != nil {
		return err.Error()
	}
	b = bytes.TrimSpace(b)
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	return string(b)
}

// Kill ends the site's dcnode at once, as a crash would.
func (s *Site) Kill() { s.signal(syscall.SIGKILL) }

func (s *Site) signal(sig syscall.Signal) {
	s.mu.Lock()
	proc := s.proc
	s.mu.Unlock()
	if proc != nil {
		_ = proc.Process.Signal(sig)
	}
}

// down ends all sites and what runs there: politely, then by force.
func (s *Sites) down() error {
	for _, site := range s.List {
		site.signal(syscall.SIGTERM)
	}
	for _, site := range s.List {
		if site.done == nil {
			continue
		}
		select {
		case <-site.done:
		case <-time.After(10 * time.Second):
			site.Kill()
			<-site.done
		}
	}
	return errors.Join(endMachines(s.Dir), s.net.close())
}

// endMachines kills the QEMU processes whose files are below dir: they outlive
// their node on purpose.
func endMachines(dir string) error {
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, p := range procs {
		cmd, err := os.ReadFile(p)
		if err != nil || !bytes.Contains(cmd, []byte("qemu")) || !bytes.Contains(cmd, []byte(dir+"/")) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(p, "/proc/%d/", &pid); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return nil
}

// printer tells people what goes on, on w.
func printer(w io.Writer) func(string, ...any) {
	began := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(w, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}
