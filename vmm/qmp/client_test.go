package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qemu"
	"github.com/digitalocean/go-qemu/qmp/raw"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const greeting = `{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": ["oob"]}}`

// server is the other end of a monitor socket, played by the test.
type server struct {
	t    *testing.T
	path string
	conn *net.UnixConn
	r    *bufio.Reader
	up   chan struct{} // closed after the handshake
	hand asked         // the handshake's command
}

type asked struct {
	Execute string         `json:"execute"`
	OOB     string         `json:"exec-oob"`
	Args    map[string]any `json:"arguments"`
	ID      uint64         `json:"id"`
}

// play listens, greets, and accepts the capabilities; then script runs.
func play(t *testing.T, hello string, script func(*server)) *server {
	t.Helper()
	s := &server{t: t, path: filepath.Join(t.TempDir(), "qmp"), up: make(chan struct{})}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer l.Close()
		l.SetDeadline(time.Now().Add(10 * time.Second))
		if s.conn, err = l.AcceptUnix(); err != nil {
			t.Error(err)
			return
		}
		defer s.conn.Close()
		s.conn.SetDeadline(time.Now().Add(10 * time.Second))
		s.r = bufio.NewReader(s.conn)
		s.say(hello)
		if hello != greeting {
			io.Copy(io.Discard, s.r)
			return
		}
		s.say(`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "EARLY"}`)
		s.hand = s.next()
		s.reply(s.hand.ID, `{}`)
		close(s.up)
		script(s)
	})
	t.Cleanup(wg.Wait)
	return s
}

func (s *server) say(line string) {
	if _, err := io.WriteString(s.conn, line+"\r\n"); err != nil {
		s.t.Errorf("server writes: %v", err)
	}
}

func (s *server) reply(id uint64, value string) {
	s.say(fmt.Sprintf(`{"return": %s, "id": %d}`, value, id))
}

// next is the client's next command; the zero value when it is gone.
func (s *server) next() (a asked) {
	line, err := s.r.ReadBytes('\n')
	if err != nil {
		return a
	}
	if err := json.Unmarshal(line, &a); err != nil {
		s.t.Errorf("client sent %q: %v", line, err)
	}
	return a
}

func connect(t *testing.T, s *server, cfg Config) *Client {
	t.Helper()
	cfg.Dial = Unix(s.path)
	c := New(cfg)
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Disconnect() })
	return c
}

func TestRepliesFindTheirCallsAmongEvents(t *testing.T) {
	const calls = 40
	s := play(t, greeting, func(s *server) {
		var got []asked
		for range calls {
			got = append(got, s.next())
			s.say(`{"event": "RTC_CHANGE", "data": {"offset": 1}, "timestamp": {"seconds": 5, "microseconds": 6}}`)
		}
		for i := len(got) - 1; i >= 0; i-- { // the last asked is answered first
			s.say(`{"event": "RTC_CHANGE", "data": {"offset": 2}, "timestamp": {"seconds": 5, "microseconds": 6}}`)
			s.reply(got[i].ID, fmt.Sprintf(`{"n": %v}`, got[i].Args["n"]))
		}
	})
	c := connect(t, s, Config{})
	events, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for n := range calls {
		wg.Go(func() {
			var reply struct{ N int }
			if err := c.Execute(t.Context(), "echo", map[string]int{"n": n}, &reply); err != nil || reply.N != n {
				t.Errorf("call %d got %d, %v", n, reply.N, err)
			}
		})
	}
	wg.Wait()
	for range calls * 2 {
		if e := <-events; e.Event != "RTC_CHANGE" || e.Data["offset"] == nil || e.Timestamp.Seconds != 5 || e.Timestamp.Microseconds != 6 {
			t.Fatalf("event %+v", e)
		}
	}
	if v := c.Version(); v.String() != "10.0.2" {
		t.Errorf("version %s", v)
	}
}

func TestLongReplyArrivesWhole(t *testing.T) {
	long := strings.Repeat("x", 300<<10)
	s := play(t, greeting, func(s *server) { s.reply(s.next().ID, `{"schema": "`+long+`"}`) })
	c := connect(t, s, Config{})
	var reply struct{ Schema string }
	if err := c.Execute(t.Context(), "query-qmp-schema", nil, &reply); err != nil || reply.Schema != long {
		t.Fatalf("got %d bytes, %v", len(reply.Schema), err)
	}
}

func TestLateReplyToACallGivenUpIsNobodyElses(t *testing.T) {
	asked1 := make(chan struct{})
	s := play(t, greeting, func(s *server) {
		first := s.next()
		close(asked1)
		second := s.next()
		s.reply(first.ID, `{"who": "first"}`)
		s.reply(second.ID, `{"who": "second"}`)
	})
	c := connect(t, s, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked1; cancel() }()
	if err := c.Execute(ctx, "slow", nil, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled call returned %v", err)
	}
	var reply struct{ Who string }
	if err := c.Execute(t.Context(), "quick", nil, &reply); err != nil || reply.Who != "second" {
		t.Fatalf("got %q, %v", reply.Who, err)
	}
}

func TestSilentMonitorFailsTheCallAtItsDeadline(t *testing.T) {
	s := play(t, greeting, func(s *server) { s.next(); s.next() })
	c := connect(t, s, Config{Timeout: 50 * time.Millisecond})
	if err := c.Execute(t.Context(), "stop", nil, nil); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "qmp stop") {
		t.Fatalf("got %v", err)
	}
	c.Disconnect()
}

// late is a context whose deadline has just passed, unnoticed by its timer: so it is for
// a moment on a busy host.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Unix(1, 0), true }

func TestDeadlineThatPassesBeforeTheCommandIsOutEndsTheCallAlone(t *testing.T) {
	s := play(t, greeting, func(s *server) {
		if a := s.next(); a.Execute != "stop" {
			t.Errorf("the command that was late came: %+v", a)
		} else {
			s.reply(a.ID, `{}`)
		}
	})
	c := connect(t, s, Config{})
	if err := c.Execute(late{t.Context()}, "cont", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the late command: %v", err)
	}
	if err := c.Execute(t.Context(), "stop", nil, nil); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

func TestLostConnectionFailsAllCallsWithTheCause(t *testing.T) {
	for name, c := range map[string]struct{ last, want string }{
		"garbage":    {"QEMU: segmentation fault\r\n", "parse message"},
		"stray id":   {`{"return": {}, "id": 4242}` + "\r\n", "nothing that was asked"},
		"no id":      {`{"return": {}}` + "\r\n", "without an id"},
		"not a word": {`{"hello": 1}` + "\r\n", "neither reply nor event"},
		"cut":        {`{"return": {`, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, greeting, func(s *server) {
				s.next()
				s.next()
				io.WriteString(s.conn, c.last)
			})
			client := connect(t, s, Config{})
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					if err := client.Execute(t.Context(), "query-status", nil, nil); err == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("call returned %v, want %q in it", err, c.want)
					}
				})
			}
			wg.Wait()
			<-client.Done()
			if err := client.Execute(t.Context(), "query-status", nil, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("call after the loss returned %v", err)
			}
			if _, err := client.Subscribe(1); err == nil {
				t.Error("subscribed to a lost connection")
			}
		})
	}
}

func TestGreetingThatIsNoneIsRefused(t *testing.T) {
	s := play(t, `HTTP/1.1 400 Bad Request`, nil)
	c := New(Config{Dial: Unix(s.path)})
	if err := c.Connect(); err == nil || !strings.Contains(err.Error(), "read greeting") {
		t.Fatalf("connected: %v", err)
	}
}

func TestSlowSubscriberLosesTheOldestEventsAndStallsNobody(t *testing.T) {
	s := play(t, greeting, func(s *server) {
		a := s.next()
		for i := range 1000 {
			s.say(fmt.Sprintf(`{"event": "E", "data": {"i": %d}}`, i))
		}
		s.reply(a.ID, `{}`)
	})
	c := connect(t, s, Config{})
	sub, err := c.Subscribe(10)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := c.Execute(t.Context(), "x", nil, nil); err != nil {
		t.Fatal(err)
	}
	if e := <-sub.C(); string(e.Data) != `{"i": 990}` || sub.Dropped() != 990 {
		t.Errorf("first event kept is %s, %d dropped; want 990 and 990", e.Data, sub.Dropped())
	}
}

func TestFilesArriveWithTheirCommand(t *testing.T) {
	s := play(t, greeting, func(s *server) {
		line, oob := make([]byte, 4096), make([]byte, 256)
		n, oobn, _, _, err := s.conn.ReadMsgUnix(line, oob)
		if err != nil {
			s.t.Error(err)
			return
		}
		var a asked
		if err := json.Unmarshal(line[:n], &a); err != nil {
			s.t.Error(err)
			return
		}
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		var words []string
		for _, m := range msgs {
			fds, _ := unix.ParseUnixRights(&m)
			for _, fd := range fds {
				f := os.NewFile(uintptr(fd), "")
				b, _ := io.ReadAll(f)
				f.Close()
				words = append(words, string(b))
			}
		}
		s.reply(a.ID, fmt.Sprintf("%q", strings.Join(words, " ")))
	})
	c := connect(t, s, Config{})
	var files []*os.File
	for _, w := range []string{"three", "open", "files"} {
		path := filepath.Join(t.TempDir(), w)
		if err := os.WriteFile(path, []byte(w), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	var reply string
	if err := c.ExecuteFiles(t.Context(), "add-fd", nil, &reply, files...); err != nil || reply != "three open files" {
		t.Fatalf("got %q, %v", reply, err)
	}
}

func TestOutOfBandOvertakesCommandsThatHang(t *testing.T) {
	s := play(t, greeting, func(s *server) {
		var hung []asked
		for range inflightOOB + 1 {
			if a := s.next(); a.OOB == "migrate-pause" {
				s.reply(a.ID, `{}`)
			} else {
				hung = append(hung, a)
			}
		}
		if len(hung) != inflightOOB {
			s.t.Errorf("%d commands in front of the out-of-band one", len(hung))
		}
		for _, a := range hung {
			s.reply(a.ID, `{}`)
		}
		for range 2 {
			s.reply(s.next().ID, `{}`)
		}
	})
	c := connect(t, s, Config{OOB: true})
	<-s.up
	if e, _ := s.hand.Args["enable"].([]any); len(e) != 1 || e[0] != "oob" {
		t.Fatalf("client enabled %v", s.hand.Args)
	}
	var wg sync.WaitGroup
	for range inflightOOB + 2 { // two more than QEMU may hold
		wg.Go(func() {
			if err := c.Execute(t.Context(), "hang", nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	if err := c.ExecuteOOB(t.Context(), "migrate-pause", nil, nil); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

func TestOutOfBandIsRefusedWhereItIsOff(t *testing.T) {
	s := play(t, greeting, func(*server) {})
	c := connect(t, s, Config{})
	if err := c.ExecuteOOB(t.Context(), "migrate-pause", nil, nil); err == nil || !strings.Contains(err.Error(), "not on") {
		t.Fatalf("got %v", err)
	}
}

func TestRefusalKeepsItsClass(t *testing.T) {
	s := play(t, greeting, func(s *server) {
		s.say(fmt.Sprintf(`{"id": %d, "error": {"class": "CommandNotFound", "desc": "The command frob has not been found"}}`, s.next().ID))
	})
	c := connect(t, s, Config{})
	var qe *Error
	if err := c.Execute(t.Context(), "frob", nil, nil); !errors.As(err, &qe) || qe.Class != "CommandNotFound" || qe.Command != "frob" {
		t.Fatalf("got %v", err)
	}
}

func TestGoQEMUWorksOnTop(t *testing.T) {
	s := play(t, greeting, func(s *server) {
		for {
			switch a := s.next(); a.Execute {
			case "":
				return
			case "query-commands":
				s.reply(a.ID, `[{"name": "stop"}, {"name": "cont"}]`)
			case "query-status":
				s.reply(a.ID, `{"status": "running", "singlestep": false, "running": true}`)
			case "query-block":
				s.reply(a.ID, `[{"device": "disk0", "locked": false, "removable": false, "type": "unknown"}]`)
			}
		}
	})
	c := connect(t, s, Config{})
	d, err := qemu.NewDomain(c, "web1")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if names, err := d.Commands(); err != nil || len(names) != 2 {
		t.Errorf("Commands = %v, %v", names, err)
	}
	if disks, err := d.BlockDevices(); err != nil || len(disks) != 1 || disks[0].Device != "disk0" {
		t.Errorf("BlockDevices = %v, %v", disks, err)
	}
	if st, err := raw.NewMonitor(c).QueryStatus(); err != nil || !st.Running {
		t.Errorf("QueryStatus = %+v, %v", st, err)
	}
}

func TestRunGivesTheCallersIDBack(t *testing.T) {
	s := play(t, greeting, func(s *server) {
		s.reply(s.next().ID, `{"a": 1}`)
		s.reply(s.next().ID, `{}`)
	})
	c := connect(t, s, Config{})
	for sent, want := range map[string]string{
		`{"execute": "x", "id": "mine"}`: `"id":"mine"`, `{"execute": "x"}`: `{"return":`,
	} {
		if out, err := c.Run([]byte(sent)); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("Run(%s) = %s, %v", sent, out, err)
		}
	}
}
