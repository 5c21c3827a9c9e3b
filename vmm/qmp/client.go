package qmp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// inflightOOB is how many commands may be under way once out-of-band execution is
// on: QEMU stops to read at 8, and an out-of-band command behind that would wait.
const inflightOOB = 6

// Config says where a monitor is.
type Config struct {
	// Dial opens the connection; package net's unix dialer, usually. Descriptors
	// can be sent only over a *net.UnixConn.
	Dial func(ctx context.Context) (net.Conn, error)
	// Timeout is the longest that a call may take whose context says nothing
	// shorter; 0: 10 s.
	Timeout time.Duration
	// OOB asks for out-of-band execution, if QEMU offers it.
	OOB bool
	Log *slog.Logger
}

// Unix dials the unix socket at path, which is at most 107 bytes.
func Unix(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// Client is one connection to a monitor. Its methods may be called from any
// goroutine. Use [New], then Connect.
type Client struct {
	cfg   Config
	write chan struct{} // holds one token: the right to write
	slots chan struct{} // nil unless out-of-band execution is on

	mu      sync.Mutex
	conn    net.Conn
	version goqemu.Version
	oob     bool
	next    uint64
	calls   map[uint64]*call
	subs    map[*Subscription]struct{}
	done    chan struct{} // closed when the reader has ended; nil before Connect
	err     error         // why it ended
}

// call is one command under way.
type call struct {
	reply chan *message // of capacity 1
	line  []byte        // the reply as it came
	slot  bool
}

// New makes a client. It connects nothing.
func New(cfg Config) *Client {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	c := &Client{cfg: cfg, write: make(chan struct{}, 1), calls: make(map[uint64]*call), subs: make(map[*Subscription]struct{})}
	c.write <- struct{}{}
	return c
}

// Connect is [Client.ConnectContext] within Config.Timeout.
func (c *Client) Connect() error { return c.ConnectContext(context.Background()) }

// ConnectContext connects and negotiates capabilities. A client connects once.
func (c *Client) ConnectContext(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	c.mu.Lock()
	if c.done != nil {
		c.mu.Unlock()
		return errors.New("connect qmp: connected already")
	}
	c.done = make(chan struct{})
	c.mu.Unlock()
	conn, err := c.cfg.Dial(ctx)
	if err != nil {
		c.fail(fmt.Errorf("connect qmp: %w", err))
		close(c.done)
		return c.Err()
	}
	r := bufio.NewReaderSize(conn, 64<<10)
	greeting, err := greet(ctx, conn, r)
	if err != nil {
		conn.Close()
		c.fail(fmt.Errorf("connect qmp: read greeting: %w", err))
		close(c.done)
		return c.Err()
	}
	c.mu.Lock()
	c.conn, c.version = conn, greeting.Greeting.Version
	c.mu.Unlock()
	go c.read(r)
	args := map[string]any{}
	if c.cfg.OOB && greeting.can("oob") {
		args["enable"] = []string{"oob"}
	}
	if err := c.Execute(ctx, "qmp_capabilities", args, nil); err != nil {
		c.Disconnect()
		return fmt.Errorf("connect qmp: %w", err)
	}
	if len(args) > 0 {
		c.mu.Lock()
		c.oob = true
		c.slots = make(chan struct{}, inflightOOB)
		c.mu.Unlock()
	}
	return nil
}

// greet reads the first message within ctx.
func greet(ctx context.Context, conn net.Conn, r *bufio.Reader) (*message, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	line, err := readLine(r)
	if !stop() {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	if err != nil {
		return nil, err
	}
	m, err := parse(line)
	if err == nil && m.Greeting == nil {
		err = fmt.Errorf("%.80q is none: is this a QMP socket, and free?", line)
	}
	return m, err
}

// Disconnect closes the connection; calls under way fail with [ErrClosed].
func (c *Client) Disconnect() error {
	c.mu.Lock()
	conn, done := c.conn, c.done
	c.mu.Unlock()
	if conn == nil {
		return nil
	}
	c.fail(ErrClosed)
	<-done
	return nil
}

// Done is closed when the connection has ended; nil before Connect.
func (c *Client) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done
}

// Err is why the connection has ended; nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Version is QEMU's, as its greeting says.
func (c *Client) Version() goqemu.Version {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// OOB says whether out-of-band execution is on.
func (c *Client) OOB() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.oob
}

// fail ends the connection; the first cause stays.
func (c *Client) fail(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = cause
	}
	if c.conn != nil {
		c.conn.Close()
	}
}

// read is the reader: it ends with the connection, and then nobody waits any more.
func (c *Client) read(r *bufio.Reader) {
	for {
		line, err := readLine(r)
		var m *message
		if err == nil {
			m, err = parse(line)
		}
		if err == nil {
			err = c.take(m, line)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("QEMU closed it: %w", io.ErrUnexpectedEOF)
			}
			c.fail(fmt.Errorf("qmp connection lost: %w", err))
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = nil
	for s := range c.subs {
		close(s.queue)
	}
	c.subs = nil
	close(c.done)
}

// take hands one message to whom it is for.
func (c *Client) take(m *message, line []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case m.Event != "":
		for s := range c.subs {
			s.push(m.event())
		}
		return nil
	case m.Return == nil && m.Error == nil:
		return fmt.Errorf("message %.80q is neither reply nor event", line)
	case m.ID == nil:
		return fmt.Errorf("reply without an id: %.200s", line)
	}
	k := c.calls[*m.ID]
	if k == nil {
		return fmt.Errorf("reply to nothing that was asked: %.200s", line)
	}
	delete(c.calls, *m.ID)
	if k.slot {
		<-c.slots
	}
	k.line = line
	k.reply <- m // capacity 1, sent once: a call given up leaves it to the collector
	return nil
}
