package gossip

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

// check fills in the defaults and returns the bootstrap addresses, by peer.
func (c *Config) check() ([]peer.AddrInfo, error) {
	if c.Key == nil && c.Host == nil {
		return nil, errors.New("gossip: Config.Key is missing")
	}
	if c.Members == nil {
		return nil, errors.New("gossip: Config.Members is missing")
	}
	if !validNetwork(c.Network) {
		return nil, fmt.Errorf("network name %q: use 1 to 64 letters, digits, '-', '_' or '.'", c.Network)
	}
	for _, list := range [][]string{c.Listen, c.Advertise} {
		for _, s := range list {
			if _, err := ma.NewMultiaddr(s); err != nil {
				return nil, fmt.Errorf("address %q is no multiaddr like /ip4/192.0.2.1/tcp/4001: %w", s, err)
			}
		}
	}
	if c.Allow == nil {
		members := c.Members
		c.Allow = func(p peer.ID) bool { return slices.Contains(members(), p) }
	}
	if c.Validate == nil {
		c.Validate = func(peer.ID, []byte) bool { return true }
	}
	if c.Verify == nil {
		c.Verify = func([]byte) bool { return true }
	}
	if c.MessageID == nil {
		c.MessageID = func(data []byte) string { h := sha256.Sum256(data); return string(h[:]) }
	}
	c.Limits.fill()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return parseBootstrap(c.Bootstrap)
}

func validNetwork(s string) bool {
	odd := func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r)
	}
	return len(s) >= 1 && len(s) <= 64 && !strings.ContainsFunc(s, odd)
}

func parseBootstrap(list []string) ([]peer.AddrInfo, error) {
	addrs := make([]ma.Multiaddr, 0, len(list))
	for _, s := range list {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, fmt.Errorf("bootstrap address %q is no multiaddr like /ip4/192.0.2.1/tcp/4001/p2p/ID: %w", s, err)
		}
		if _, id := peer.SplitAddr(a); id == "" {
			return nil, fmt.Errorf("bootstrap address %q does not end in /p2p/ID: add the peer ID that the member shows in its status", s)
		}
		addrs = append(addrs, a)
	}
	return peer.AddrInfosFromP2pAddrs(addrs...)
}

// prefix starts every protocol ID of this overlay.
func (c *Config) prefix() protocol.ID { return protocol.ID("/dcnode/" + c.Network) }
