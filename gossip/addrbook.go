package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// maxAddrs is how many addresses of a member are kept.
const maxAddrs = 16

// addrBook knows where members were last seen. The file is JSON, peer ID to
// multiaddrs, and replaced as a whole; losing it costs a bootstrap.
type addrBook struct {
	path string // empty: in memory only

	mu    sync.Mutex
	seeds map[peer.ID][]ma.Multiaddr // from the configuration, not saved
	seen  map[peer.ID][]ma.Multiaddr
	dirty bool
}

func openAddrBook(path string) (*addrBook, error) {
	b := &addrBook{path: path, seeds: map[peer.ID][]ma.Multiaddr{}, seen: map[peer.ID][]ma.Multiaddr{}}
	if path == "" {
		return b, nil
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the address book: %w", err)
	}
	var file map[string][]string
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("read the address book %s: %w: delete it, the members' addresses are found again", path, err)
	}
	for id, list := range file {
		p, err := peer.Decode(id)
		if err != nil {
			continue // written by a version that knows more; the rest is good
		}
		for _, s := range list {
			if a, err := ma.NewMultiaddr(s); err == nil {
				b.seen[p] = append(b.seen[p], a)
			}
		}
	}
	return b, nil
}

// seed adds addresses that the operator named.
func (b *addrBook) seed(info peer.AddrInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seeds[info.ID] = append(b.seeds[info.ID], info.Addrs...)
}

// addrs returns what is known of p.
func (b *addrBook) addrs(p peer.ID) []ma.Multiaddr {
	b.mu.Lock()
	defer b.mu.Unlock()
	return ma.Unique(slices.Concat(b.seeds[p], b.seen[p]))
}

// learn replaces the addresses of p by those that it has now.
func (b *addrBook) learn(p peer.ID, addrs []ma.Multiaddr) {
	if len(addrs) == 0 {
		return
	}
	addrs = slices.Clone(addrs)
	slices.SortFunc(addrs, func(x, y ma.Multiaddr) int { return x.Compare(y) })
	addrs = addrs[:min(len(addrs), maxAddrs)]
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.EqualFunc(b.seen[p], addrs, ma.Multiaddr.Equal) {
		return
	}
	b.seen[p], b.dirty = addrs, true
}

// forget drops who is no longer a member.
func (b *addrBook) forget(member func(peer.ID) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for p := range b.seen {
		if !member(p) {
			delete(b.seen, p)
			b.dirty = true
		}
	}
}

// save writes the file if something changed.
func (b *addrBook) save() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.path == "" || !b.dirty {
		return nil
	}
	file := make(map[string][]string, len(b.seen))
	for p, addrs := range b.seen {
		for _, a := range addrs {
			file[p.String()] = append(file[p.String()], a.String())
		}
	}
	raw, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return fmt.Errorf("write the address book: %w", err)
	}
	if err := replaceFile(b.path, append(raw, '\n')); err != nil {
		return fmt.Errorf("write the address book: %w", err)
	}
	b.dirty = false
	return nil
}

// replaceFile writes beside the file and renames, so that a crash leaves the old one.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
