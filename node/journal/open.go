package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// load finds out what there is and makes the last segment ready to be written on.
func (j *Journal) load() error {
	numbers, err := j.list()
	if err != nil {
		return err
	}
	for i, n := range numbers {
		j.next = n
		if err := j.loadSegment(n, i == len(numbers)-1); err != nil {
			return err
		}
	}
	if n := len(j.segs); n > 0 {
		j.last, j.any = j.segs[n-1].last, true
	}
	return nil
}

// list gives the numbers of the segments that there are, ascending.
func (j *Journal) list() ([]uint64, error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), "journal-")
		if digits, ok = strings.CutSuffix(digits, ".log"); !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err == nil && segmentName(n) == e.Name() {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers) // as names, a million is before 999,999
	return numbers, nil
}

func (j *Journal) loadSegment(number uint64, newest bool) error {
	path := filepath.Join(j.dir, segmentName(number))
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if f != j.f {
			f.Close()
		}
	}()
	if info, err := f.Stat(); err == nil && newest && info.Size() < segmentHead {
		return j.disk.Remove(path) // a crash while it was made
	}
	s, err := readHead(f, path, number, j.cfg.Network)
	if err == nil && len(j.segs) > 0 && s.first <= j.segs[len(j.segs)-1].last {
		err = &damageError{fmt.Sprintf("it begins at index %d, which is in the segment before it", s.first)}
	}
	var bad *damageError
	if errors.As(err, &bad) {
		return j.putAside(&segment{path: path}, err)
	}
	if err != nil {
		return err
	}
	if newest {
		return j.takeLast(s, f)
	}
	made, err := s.readIndex(f)
	switch {
	case err != nil && !errors.As(err, &bad):
		return err
	case len(s.blocks) == 0:
		return j.putAside(s, errors.New("it has no entry that can be read"))
	case err != nil:
		j.damage(s, s.size, err)
	case made:
		_ = j.disk.PlaceUnsynced(s.indexPath(), s.marshalIndex())
	}
	s.full, s.blocks = true, nil
	j.segs = append(j.segs, s)
	return nil
}

// putAside renames a file that is no segment, so that nobody takes it for one.
func (j *Journal) putAside(s *segment, why error) error {
	j.note("%s: %v: it is put aside as %s.bad, and its entries are lacking", s.path, why, filepath.Base(s.path))
	_ = j.disk.Remove(s.indexPath())
	return j.disk.Rename(s.path, s.path+".bad")
}

// takeLast makes the newest segment the one that is written on. What is after its last
// whole event goes: the replay brings it again.
func (j *Journal) takeLast(s *segment, f *os.File) error {
	whole, err := s.scan(f)
	var bad *damageError
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	if err != nil {
		info, serr := f.Stat()
		if serr != nil {
			return serr
		}
		j.note("%s, byte %d: %v: the %d bytes from there on are cut off, as after a crash; the replay of the order brings back what it still covers", s.path, whole, err, info.Size()-whole)
		if whole == segmentHead {
			return j.removeSegment(s)
		}
		if err := j.disk.Truncate(f, whole); err != nil {
			return err
		}
		if _, err := s.scan(f); err != nil { // what goes must go from the index too
			return err
		}
	} else if whole == segmentHead {
		return j.removeSegment(s)
	}
	// It grows from here on.
	if err := j.disk.Remove(s.indexPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	j.segs, j.f = append(j.segs, s), f
	return nil
}

// removeSegment removes a segment and its index, which may not be there.
func (j *Journal) removeSegment(s *segment) error {
	_ = j.disk.Remove(s.indexPath())
	return j.disk.Remove(s.path)
}
