package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"
)

// Client talks to the node behind a control socket.
type Client struct {
	path string
	http *http.Client
}

// NewClient makes a client; it opens nothing yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		dir, short, err := shorten(path)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		var d net.Dialer
		return d.DialContext(ctx, "unix", short)
	}
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// RemoteError is what the node said when it could not do it.
type RemoteError struct{ Message string }

func (e *RemoteError) Error() string { return e.Message }

// Status implements Overlay.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, "GET", "/v1/status", nil, &s, nil)
}

// Ledger implements Overlay.
func (c *Client) Ledger(ctx context.Context) (*Ledger, error) {
	s := new(Ledger)
	return s, c.call(ctx, "GET", "/v1/ledger", nil, s, nil)
}

// AddImage implements Images.
func (c *Client) AddImage(ctx context.Context, r AddImage, tell Tell) (i Image, err error) {
	return i, c.call(ctx, "POST", "/v1/images", r, &i, tell)
}

// ListImages implements Images.
func (c *Client) ListImages(ctx context.Context) (is []Image, err error) {
	return is, c.call(ctx, "GET", "/v1/images", nil, &is, nil)
}

// FetchImage implements Images.
func (c *Client) FetchImage(ctx context.Context, name string, tell Tell) (i Image, err error) {
	return i, c.call(ctx, "POST", "/v1/images/"+url.PathEscape(name)+"/fetch", struct{}{}, &i, tell)
}

// RemoveImage implements Images.
func (c *Client) RemoveImage(ctx context.Context, name string) (i RemovedImage, err error) {
	return i, c.call(ctx, "DELETE", "/v1/images/"+url.PathEscape(name), nil, &i, nil)
}

// RunMachine implements Machines.
func (c *Client) RunMachine(ctx context.Context, r RunMachine, tell Tell) (m Machine, err error) {
	return m, c.call(ctx, "POST", "/v1/machines", r, &m, tell)
}

// ListMachines implements Machines.
func (c *Client) ListMachines(ctx context.Context) (ms []Machine, err error) {
	return ms, c.call(ctx, "GET", "/v1/machines", nil, &ms, nil)
}

// StopMachine implements Machines.
func (c *Client) StopMachine(ctx context.Context, name string) (m Machine, err error) {
	return m, c.call(ctx, "POST", machinePath(name)+"/stop", struct{}{}, &m, nil)
}

// StartMachine implements Machines.
func (c *Client) StartMachine(ctx context.Context, name string) (m Machine, err error) {
	return m, c.call(ctx, "POST", machinePath(name)+"/start", struct{}{}, &m, nil)
}

// RemoveMachine implements Machines.
func (c *Client) RemoveMachine(ctx context.Context, name string) error {
	return c.call(ctx, "DELETE", machinePath(name), nil, nil, nil)
}

// Migrate implements Machines.
func (c *Client) Migrate(ctx context.Context, r Migrate, tell Tell) (rep Report, err error) {
	return rep, c.call(ctx, "POST", machinePath(r.Name)+"/migrate", r, &rep, tell)
}

// CancelMove implements Machines.
func (c *Client) CancelMove(ctx context.Context, name string) (x Cancelled, err error) {
	return x, c.call(ctx, "DELETE", machinePath(name)+"/move", nil, &x, nil)
}

// Why implements Machines.
func (c *Client) Why(ctx context.Context, name string) (w Why, err error) {
	return w, c.call(ctx, "GET", machinePath(name)+"/why", nil, &w, nil)
}

func machinePath(name string) string { return "/v1/machines/" + url.PathEscape(name) }

// call sends one request and reads its lines.
func (c *Client) call(ctx context.Context, method, path string, q, v any, tell Tell) error {
	body, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	const gone = "the node went away: see its log, and `dcnode vm ls` once it is back"
	return lines(ctx, c, method, path, bytes.NewReader(body), "read answer", gone, func(l *Line) (more bool, err error) {
		switch {
		case l.Error != "":
			return false, &RemoteError{l.Error}
		case l.Progress != nil:
			if tell != nil {
				tell(*l.Progress)
			}
			return true, nil
		case v == nil:
			return false, nil
		}
		return false, json.Unmarshal(l.Result, v)
	})
}

// lines sends one request and hands the lines of its answer to take as long as that
// wants more. doing and gone are for the error of an answer that breaks off.
func lines[L any](ctx context.Context, c *Client, method, path string, body io.Reader, doing, gone string, take func(*L) (more bool, err error)) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://dcnode"+path, body)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var l L
		if err := d.Decode(&l); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.New(gone)
			}
			return fmt.Errorf("%s: %w", doing, err)
		}
		if more, err := take(&l); err != nil || !more {
			return err
		}
	}
}

// explain says what to do about a socket that does not answer.
func (c *Client) explain(err error) error {
	dir := filepath.Dir(c.path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("control socket %s belongs to another user: run as that user, or with sudo", c.path)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no node runs in %s: start it with `dcnode run --data %s`, or name another --data", dir, dir)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("the node of %s has ended: start it with `dcnode run --data %s`", dir, dir)
	}
	return fmt.Errorf("talk to the node of %s: %w", dir, err)
}
