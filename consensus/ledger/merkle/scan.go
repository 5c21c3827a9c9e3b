package merkle

import (
	"bytes"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
)

// The major types of CBOR (RFC 8949 §3.1).
const (
	majorUint = iota
	majorNegative
	majorBytes
	majorText
	majorList
	majorMap
	majorTag
	majorSimple

	tagLink  = 42
	cborNull = 0xf6
)

// scanner reads DAG-CBOR (https://ipld.io/specs/codecs/dag-cbor/spec/) and accepts only
// its one canonical form. It allocates nothing but for links inside values.
type scanner struct {
	b  []byte
	at int
}

// scanAll checks that b is one item and nothing more.
func scanAll(b []byte) error {
	s := scanner{b: b}
	if err := s.item(0); err != nil {
		return err
	}
	return s.end()
}

func (s *scanner) end() error {
	if s.at != len(s.b) {
		return invalid("%d bytes follow the value", len(s.b)-s.at)
	}
	return nil
}

// head reads a type and its number, which has to be as short as it can.
func (s *scanner) head() (major byte, n uint64, err error) {
	if s.at >= len(s.b) {
		return 0, 0, invalid("cut off at byte %d", s.at)
	}
	first := s.b[s.at]
	major, info := first>>5, first&31
	s.at++
	if info < 24 {
		return major, uint64(info), nil
	}
	if major == majorSimple || info > 27 {
		return 0, 0, invalid("byte %d: a float, an indefinite length or another thing that DAG-CBOR lacks (%#x)", s.at-1, first)
	}
	size := 1 << (info - 24)
	if len(s.b)-s.at < size {
		return 0, 0, invalid("cut off at byte %d", len(s.b))
	}
	for _, c := range s.b[s.at : s.at+size] {
		n = n<<8 | uint64(c)
	}
	if shortest := size == 1 && n >= 24 || size > 1 && n>>(4*size) != 0; !shortest {
		return 0, 0, invalid("byte %d: the number %d is longer than need be", s.at-1, n)
	}
	s.at += size
	return major, n, nil
}

// want reads the head of one type, whose number is at most most.
func (s *scanner) want(major byte, most uint64) (uint64, error) {
	at := s.at
	got, n, err := s.head()
	if err != nil {
		return 0, err
	}
	if got != major {
		return 0, invalid("byte %d: type %d where %d is due", at, got, major)
	}
	if n > most {
		return 0, invalid("byte %d: %d is more than %d", at, n, most)
	}
	return n, nil
}

// take reads n bytes.
func (s *scanner) take(n uint64) ([]byte, error) {
	if n > uint64(len(s.b)-s.at) {
		return nil, invalid("cut off at byte %d", len(s.b))
	}
	p := s.b[s.at : s.at+int(n) : s.at+int(n)]
	s.at += int(n)
	return p, nil
}

// literal reads exactly these bytes.
func (s *scanner) literal(p string) error {
	if len(s.b)-s.at < len(p) || string(s.b[s.at:s.at+len(p)]) != p {
		return invalid("byte %d: another shape than a node's", s.at)
	}
	s.at += len(p)
	return nil
}

// item passes over one value, inside of depth others.
func (s *scanner) item(depth int) error {
	at := s.at
	major, n, err := s.head()
	if err != nil {
		return err
	}
	switch major {
	case majorUint:
		return nil
	case majorNegative:
		if n > 1<<63-1 {
			return invalid("byte %d: a number below -2^63", at)
		}
		return nil
	case majorBytes:
		_, err = s.take(n)
		return err
	case majorText:
		_, err = s.text(n)
		return err
	case majorSimple:
		if n < 20 || n > 22 { // false, true, null
			return invalid("byte %d: simple value %d", at, n)
		}
		return nil
	}
	if depth++; depth > MaxDepth {
		return invalid("byte %d: nested deeper than %d", at, MaxDepth)
	}
	if major == majorTag {
		if s.at = at; s.plainLink() {
			return nil
		}
		_, err = s.link()
		return err
	}
	if n > MaxItems || n > uint64(len(s.b)-s.at) {
		return invalid("byte %d: %d items are more than %d, or than there are bytes", at, n, MaxItems)
	}
	if major == majorMap {
		return s.fields(n, depth)
	}
	for range n {
		if err := s.item(depth); err != nil {
			return err
		}
	}
	return nil
}

// fields passes over a map's n pairs, whose keys are text and ascend: first by length.
func (s *scanner) fields(n uint64, depth int) error {
	var last []byte
	for i := range n {
		at := s.at
		size, err := s.want(majorText, uint64(len(s.b)))
		if err != nil {
			return err
		}
		key, err := s.text(size)
		if err != nil {
			return err
		}
		if i > 0 && (len(key) < len(last) || len(key) == len(last) && bytes.Compare(key, last) <= 0) {
			return invalid("byte %d: the key %q comes after %q", at, key, last)
		}
		last = key
		if err := s.item(depth); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) text(n uint64) ([]byte, error) {
	at := s.at
	p, err := s.take(n)
	if err == nil && !utf8.Valid(p) {
		err = invalid("byte %d: text that is not UTF-8", at)
	}
	return p, err
}

// plainLink passes over a link whose CID is of version 1 with a SHA-256, as nearly all
// are, without making a CID of it. It is false, and nothing is passed, for all others.
func (s *scanner) plainLink() bool {
	rest := s.b[s.at:]
	const codec = len(linkHead) - 3 // its place: 1 byte, below 0x80
	if len(rest) < linkSize || rest[codec] >= 0x80 ||
		string(rest[:codec]) != linkHead[:codec] || string(rest[codec+1:len(linkHead)]) != linkHead[codec+1:] {
		return false
	}
	s.at += linkSize
	return true
}

// link reads a tag 42 with its CID.
func (s *scanner) link() (cid.Cid, error) {
	at := s.at
	tag, err := s.want(majorTag, 1<<63)
	if err != nil {
		return cid.Undef, err
	}
	if tag != tagLink {
		return cid.Undef, invalid("byte %d: tag %d; DAG-CBOR has only 42, a link", at, tag)
	}
	n, err := s.want(majorBytes, MaxLink+1)
	if err != nil {
		return cid.Undef, err
	}
	raw, err := s.take(n)
	if err != nil {
		return cid.Undef, err
	}
	if len(raw) < 2 || raw[0] != 0 {
		return cid.Undef, invalid("byte %d: a link without its leading zero", at)
	}
	c, err := cid.Cast(raw[1:])
	if err != nil {
		return cid.Undef, invalid("byte %d: %v", at, err)
	}
	return c, nil
}

// appendHead writes a type and its number in the shortest form.
func appendHead(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return append(b, major|25, byte(n>>8), byte(n))
	case n < 1<<32:
		return append(b, major|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, major|27, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}
