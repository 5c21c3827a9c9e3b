package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxFiles is what one SCM_RIGHTS message may carry (SCM_MAX_FD in Linux).
const maxFiles = 253

// Execute runs a command and decodes what it returns into reply, which may be nil.
// args is anything that encodes to a JSON object, or nil. What QEMU refuses is an
// [*Error]; a lost connection is its cause. A call whose ctx ends may still be
// carried out by QEMU.
func (c *Client) Execute(ctx context.Context, cmd string, args, reply any) error {
	return c.call(ctx, command{Execute: cmd, Args: args}, nil, reply)
}

// ExecuteFiles is Execute with open files beside the command, as getfd and add-fd
// take them. QEMU gets duplicates; the caller keeps its own.
func (c *Client) ExecuteFiles(ctx context.Context, cmd string, args, reply any, files ...*os.File) error {
	if len(files) > maxFiles {
		return fmt.Errorf("qmp %s: %d files at once, the most is %d", cmd, len(files), maxFiles)
	}
	return c.call(ctx, command{Execute: cmd, Args: args}, files, reply)
}

// ExecuteOOB runs a command ahead of those that QEMU has queued, from its monitor's
// own thread; only few commands may (migrate-pause, migrate-recover, yank, …).
func (c *Client) ExecuteOOB(ctx context.Context, cmd string, args, reply any) error {
	if !c.OOB() {
		return fmt.Errorf("qmp %s: out-of-band execution is not on: set Config.OOB, and use QEMU with its monitor on a socket", cmd)
	}
	return c.call(ctx, command{OOB: cmd, Args: args}, nil, reply)
}

func (c *Client) call(ctx context.Context, cmd command, files []*os.File, reply any) error {
	name := cmd.Execute + cmd.OOB
	m, _, err := c.exchange(ctx, files, cmd.OOB == "", func(id uint64) ([]byte, error) {
		cmd.ID = id
		return json.Marshal(cmd)
	})
	switch {
	case err != nil:
		return fmt.Errorf("qmp %s: %w", name, err)
	case m.Error != nil:
		return &Error{Command: name, Class: m.Error.Class, Desc: m.Error.Desc}
	case reply == nil:
		return nil
	}
	if err := json.Unmarshal(m.Return, reply); err != nil {
		return fmt.Errorf("qmp %s: decode reply: %w", name, err)
	}
	return nil
}

// exchange sends what encode makes of a fresh id and waits for the reply.
func (c *Client) exchange(ctx context.Context, files []*os.File, inBand bool, encode func(uint64) ([]byte, error)) (*message, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	k := &call{reply: make(chan *message, 1)}
	c.mu.Lock()
	slots, done := c.slots, c.done
	c.mu.Unlock()
	if done == nil {
		return nil, nil, errors.New("not connected")
	}
	if inBand && slots != nil {
		select {
		case slots <- struct{}{}:
			k.slot = true
		case <-done:
			return nil, nil, c.Err()
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("wait for earlier commands: %w", context.Cause(ctx))
		}
	}
	if err := c.send(ctx, k, files, encode); err != nil {
		return nil, nil, err
	}
	select {
	case m := <-k.reply:
		return m, k.line, nil
	case <-done:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("wait for the reply: %w", context.Cause(ctx))
	}
	select { // the reply may have come before the end
	case m := <-k.reply:
		return m, k.line, nil
	default:
		return nil, nil, c.Err()
	}
}

// send registers the call and writes it. What was not begun to be written leaves no trace.
func (c *Client) send(ctx context.Context, k *call, files []*os.File, encode func(uint64) ([]byte, error)) error {
	release := func() {
		if k.slot {
			<-c.slots
		}
	}
	select {
	case <-c.write:
		defer func() { c.write <- struct{}{} }()
	case <-ctx.Done():
		release()
		return fmt.Errorf("wait to send: %w", context.Cause(ctx))
	}
	c.mu.Lock()
	id, conn, err := c.next, c.conn, c.err
	c.next++
	c.mu.Unlock()
	if err == nil && conn == nil {
		err = errors.New("not connected")
	}
	var line []byte
	if err == nil {
		line, err = encode(id)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		release()
		return err
	}
	c.mu.Lock()
	if c.calls == nil { // the reader has ended
		c.mu.Unlock()
		return c.Err()
	}
	c.calls[id] = k
	c.mu.Unlock()
	n, err := writeAll(ctx, conn, append(line, '\n'), files)
	switch {
	case err == nil:
		return nil
	case n == 0 && errors.Is(err, os.ErrDeadlineExceeded):
		// The caller's time was over before anything was out; others' has not come.
		c.mu.Lock()
		delete(c.calls, id)
		c.mu.Unlock()
		release()
		return fmt.Errorf("wait to send: %w", context.DeadlineExceeded)
	}
	// Half a command may be out: nothing sensible can follow on this connection.
	c.fail(fmt.Errorf("qmp connection lost: write command: %w", err))
	return c.Err()
}

// writeAll writes a command by ctx's deadline, the files with its first byte, and says
// how many bytes of it are out.
func writeAll(ctx context.Context, conn net.Conn, line []byte, files []*os.File) (n int, err error) {
	by, _ := ctx.Deadline()
	if err := conn.SetWriteDeadline(by); err != nil {
		return 0, err
	}
	if len(files) > 0 {
		u, ok := conn.(*net.UnixConn)
		if !ok {
			return 0, errors.New("files can be sent only over a unix socket")
		}
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		n, _, err = u.WriteMsgUnix(line, unix.UnixRights(fds...), nil)
		if err != nil || n == len(line) {
			return n, err
		}
	}
	k, err := conn.Write(line[n:])
	return n + k, err
}
