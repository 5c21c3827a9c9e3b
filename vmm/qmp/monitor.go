package qmp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

var _ goqemu.Monitor = (*Client)(nil)

// Run executes a raw command and returns the raw reply, as go-qemu's Monitor has
// it, within Config.Timeout. The caller's id, if any, comes back in the reply.
func (c *Client) Run(raw []byte) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("run qmp command: %w", err)
	}
	theirs := fields["id"]
	_, oob := fields["exec-oob"]
	if oob && !c.OOB() {
		return nil, fmt.Errorf("run qmp command: out-of-band execution is not on")
	}
	m, line, err := c.exchange(context.Background(), nil, !oob, func(id uint64) ([]byte, error) {
		fields["id"] = fmt.Appendf(nil, "%d", id)
		return json.Marshal(fields)
	})
	if err != nil {
		return nil, fmt.Errorf("run qmp command: %w", err)
	}
	if m.Error != nil {
		name := string(bytes.Trim(append(fields["execute"], fields["exec-oob"]...), `"`))
		return nil, &Error{Command: name, Class: m.Error.Class, Desc: m.Error.Desc}
	}
	return restoreID(line, theirs)
}

// restoreID puts the caller's id, or none, in the place of ours.
func restoreID(line []byte, id json.RawMessage) ([]byte, error) {
	var reply map[string]json.RawMessage
	if err := json.Unmarshal(line, &reply); err != nil {
		return nil, err
	}
	delete(reply, "id")
	if id != nil {
		reply["id"] = id
	}
	return json.Marshal(reply)
}
