package qmp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// maxLine bounds one message: a full query-qmp-schema is a quarter of a megabyte.
const maxLine = 64 << 20

// Error is a command that QEMU refused.
type Error struct {
	Command string
	Class   string // "GenericError", "CommandNotFound", "DeviceNotFound", …
	Desc    string // for people
}

func (e *Error) Error() string {
	if e.Class == "" || e.Class == "GenericError" {
		return fmt.Sprintf("qmp %s: %s", e.Command, e.Desc)
	}
	return fmt.Sprintf("qmp %s: %s (%s)", e.Command, e.Desc, e.Class)
}

// ErrClosed is the cause when the client itself closed the connection.
var ErrClosed = errors.New("qmp connection closed")

// Event is something that QEMU tells unasked.
type Event struct {
	Name string          // "STOP", "MIGRATION", …
	Data json.RawMessage // an object, or nil
	Time time.Time       // QEMU's clock
}

// command is what goes out.
type command struct {
	Execute string `json:"execute,omitempty"`
	OOB     string `json:"exec-oob,omitempty"`
	Args    any    `json:"arguments,omitempty"`
	ID      uint64 `json:"id"`
}

// message is anything that comes in.
type message struct {
	Greeting *struct {
		Version      goqemu.Version    `json:"version"`
		Capabilities []json.RawMessage `json:"capabilities"`
	} `json:"QMP"`
	ID     *uint64         `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

func (m *message) event() Event {
	return Event{Name: m.Event, Data: m.Data, Time: time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*1000)}
}

func (m *message) can(capability string) bool {
	want, _ := json.Marshal(capability)
	for _, c := range m.Greeting.Capabilities {
		if bytes.Equal(c, want) {
			return true
		}
	}
	return false
}

// readLine reads one message, however it was cut into packets.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...) // ReadSlice's bytes die with the next read
		switch {
		case len(line) > maxLine:
			return nil, fmt.Errorf("message longer than %d bytes", maxLine)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return nil, err
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line, nil
		}
	}
}

func parse(line []byte) (*message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return nil, fmt.Errorf("parse message %.80q: %w", line, err)
	}
	return &m, nil
}
