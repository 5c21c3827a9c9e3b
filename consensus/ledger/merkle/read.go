package merkle

import (
	"bytes"
	"cmp"
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// Reading into a known type in one pass. What a type says of a value (which fields it
// has and in what order they stand, which are left out when empty, how large its numbers
// are) is looked up once; reading by that takes exactly the bytes that Encode writes, so
// that there is no need to encode the value again to see that it has one form only.

// reader reads the next value, inside of depth others, into v, which is zero.
type reader func(s *scanner, v reflect.Value, depth int) error

// A Decoder decodes values of one type as Decode does, without having to look at the
// type each time. It may be used by several goroutines.
type Decoder struct {
	typ  reflect.Type
	read reader // nil: the type has, or has within it, what is not read in one pass
}

// NewDecoder is the decoder of the values of that type. It reads them in one pass unless
// they have within them maps, interfaces, floats, methods that encode them, embedded
// fields or themselves: these are decoded by the library, and encoded again.
func NewDecoder(t reflect.Type) Decoder { return Decoder{t, makeReader(t, nil)} }

// Decode is the package's Decode into v, which points to a zero value of the decoder's
// type.
func (d Decoder) Decode(b []byte, v any) error {
	p := reflect.ValueOf(v)
	if d.read == nil || p.Type() != reflect.PointerTo(d.typ) || p.IsNil() {
		return decodeLoose(b, v)
	}
	s := scanner{b: b}
	err := d.read(&s, p.Elem(), 0)
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return fmt.Errorf("decode %s: %w", d.typ, err)
	}
	return nil
}

var (
	linkType = reflect.TypeFor[Link]()
	rawType  = reflect.TypeFor[Raw]()
	codes    = []reflect.Type{
		reflect.TypeFor[cbor.Marshaler](), reflect.TypeFor[cbor.Unmarshaler](),
		reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.BinaryUnmarshaler](),
	}
)

// makeReader makes the reader of a type that is found within the types above.
func makeReader(t reflect.Type, above []reflect.Type) reader {
	switch t {
	case linkType:
		return readLink
	case rawType:
		return readRaw
	}
	for _, c := range codes { // a pointer has the methods of what it points to
		if t.Kind() != reflect.Pointer && (t.Implements(c) || reflect.PointerTo(t).Implements(c)) {
			return nil
		}
	}
	if slices.Contains(above, t) { // a type that contains itself
		return nil
	}
	above = append(above, t)
	switch t.Kind() {
	case reflect.Bool:
		return readBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return readInt
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return readUint
	case reflect.String:
		return readText
	case reflect.Slice:
		return makeListReader(t, above)
	case reflect.Array:
		if t.Elem() == reflect.TypeFor[byte]() {
			return readArray
		}
	case reflect.Pointer:
		return makePointerReader(t, above)
	case reflect.Struct:
		return makeStructReader(t, above)
	}
	return nil
}

func readBool(s *scanner, v reflect.Value, _ int) error {
	at := s.at
	n, err := s.want(majorSimple, 21)
	if err == nil && n < 20 {
		err = invalid("byte %d: simple value %d", at, n)
	}
	v.SetBool(n == 21)
	return err
}

func readInt(s *scanner, v reflect.Value, _ int) error {
	at := s.at
	major, n, err := s.head()
	if err != nil {
		return err
	}
	if major > majorNegative || n > math.MaxInt64 {
		return invalid("byte %d: no number that fits %s", at, v.Type())
	}
	i := int64(n)
	if major == majorNegative {
		i = -1 - i
	}
	if v.OverflowInt(i) {
		return invalid("byte %d: %d does not fit %s", at, i, v.Type())
	}
	v.SetInt(i)
	return nil
}

func readUint(s *scanner, v reflect.Value, _ int) error {
	at := s.at
	n, err := s.want(majorUint, math.MaxUint64)
	if err != nil {
		return err
	}
	if v.OverflowUint(n) {
		return invalid("byte %d: %d does not fit %s", at, n, v.Type())
	}
	v.SetUint(n)
	return nil
}

func readText(s *scanner, v reflect.Value, _ int) error {
	p, err := s.wantText()
	if err != nil {
		return err
	}
	v.SetString(string(p))
	return nil
}

func (s *scanner) wantText() ([]byte, error) {
	n, err := s.want(majorText, math.MaxUint64)
	if err != nil {
		return nil, err
	}
	return s.text(n)
}

func (s *scanner) wantBytes() ([]byte, error) {
	n, err := s.want(majorBytes, math.MaxUint64)
	if err != nil {
		return nil, err
	}
	return s.take(n)
}

func readBytes(s *scanner, v reflect.Value, _ int) error {
	p, err := s.wantBytes()
	if err != nil {
		return err
	}
	v.SetBytes(append(make([]byte, 0, len(p)), p...))
	return nil
}

func readArray(s *scanner, v reflect.Value, _ int) error {
	at := s.at
	p, err := s.wantBytes()
	if err == nil && len(p) != v.Len() {
		err = invalid("byte %d: %d bytes where %d are due", at, len(p), v.Len())
	}
	if err != nil {
		return err
	}
	reflect.Copy(v, reflect.ValueOf(p))
	return nil
}

func readLink(s *scanner, v reflect.Value, depth int) error {
	if depth >= MaxDepth {
		return invalid("byte %d: nested deeper than %d", s.at, MaxDepth)
	}
	c, err := s.link()
	if err != nil {
		return err
	}
	v.Set(reflect.ValueOf(Link{c}))
	return nil
}

func readRaw(s *scanner, v reflect.Value, depth int) error {
	start := s.at
	if err := s.item(depth); err != nil {
		return err
	}
	v.SetBytes(bytes.Clone(s.b[start:s.at]))
	return nil
}

// open reads the head of a list or map that is inside of depth others.
func (s *scanner) open(major byte, depth int) (int, error) {
	at := s.at
	n, err := s.want(major, MaxItems)
	if err != nil {
		return 0, err
	}
	if depth >= MaxDepth {
		return 0, invalid("byte %d: nested deeper than %d", at, MaxDepth)
	}
	if n > uint64(len(s.b)-s.at) {
		return 0, invalid("byte %d: %d items are more than there are bytes", at, n)
	}
	return int(n), nil
}

func makeListReader(t reflect.Type, above []reflect.Type) reader {
	if t.Elem().Kind() == reflect.Uint8 {
		if t.Elem() != reflect.TypeFor[byte]() {
			return nil
		}
		return readBytes
	}
	if t == reflect.TypeFor[[]string]() {
		return readTexts
	}
	each := makeReader(t.Elem(), above)
	if each == nil {
		return nil
	}
	return func(s *scanner, v reflect.Value, depth int) error {
		n, err := s.open(majorList, depth)
		if err != nil {
			return err
		}
		list := reflect.MakeSlice(t, n, n)
		for i := range n {
			if err := each(s, list.Index(i), depth+1); err != nil {
				return err
			}
		}
		v.Set(list)
		return nil
	}
}

// readTexts reads a list of texts, which share their memory: whoever keeps one of them
// keeps them all, or a copy.
func readTexts(s *scanner, v reflect.Value, depth int) error {
	n, err := s.open(majorList, depth)
	if err != nil {
		return err
	}
	start := s.at
	for range n {
		if _, err := s.wantText(); err != nil {
			return err
		}
	}
	end := s.at
	all := string(s.b[start:end])
	list := make([]string, n)
	s.at = start
	for i := range list {
		_, size, err := s.head()
		if err != nil {
			return err
		}
		from := s.at - start
		s.at += int(size)
		list[i] = all[from : s.at-start]
	}
	v.Set(reflect.ValueOf(list))
	return nil
}

// makePointerReader reads null as nil. Of what may itself be encoded as null nobody
// could tell which of the two was nil.
func makePointerReader(t reflect.Type, above []reflect.Type) reader {
	e := t.Elem()
	if e.Kind() == reflect.Pointer || e == rawType {
		return nil
	}
	inner := makeReader(e, above)
	if inner == nil {
		return nil
	}
	return func(s *scanner, v reflect.Value, depth int) error {
		if s.at < len(s.b) && s.b[s.at] == cborNull {
			s.at++
			return nil
		}
		p := reflect.New(e)
		if err := inner(s, p.Elem(), depth); err != nil {
			return err
		}
		v.Set(p)
		return nil
	}
}

// field is one of a struct's, as it stands in its map.
type field struct {
	name  string
	key   string // encoded
	index int
	omit  bool // when empty
	read  reader
}

func makeStructReader(t reflect.Type, above []reflect.Type) reader {
	fields, ok := fieldsOf(t, above)
	if !ok {
		return nil
	}
	return func(s *scanner, v reflect.Value, depth int) error {
		n, err := s.open(majorMap, depth)
		if err != nil {
			return err
		}
		for i := range fields {
			f := &fields[i]
			if n == 0 || !s.passes(f.key) {
				if f.omit {
					continue
				}
				return invalid("byte %d: the field %q of a %s is due", s.at, f.name, t)
			}
			n--
			at, fv := s.at, v.Field(f.index)
			if err := f.read(s, fv, depth+1); err != nil {
				return err
			}
			if f.omit && empty(fv) {
				return invalid("byte %d: the empty field %q, which is to be left out", at, f.name)
			}
		}
		if n > 0 {
			return invalid("byte %d: a field that a %s does not have, or at another place", s.at, t)
		}
		return nil
	}
}

// passes reads exactly these bytes, or nothing.
func (s *scanner) passes(p string) bool {
	if len(s.b)-s.at < len(p) || string(s.b[s.at:s.at+len(p)]) != p {
		return false
	}
	s.at += len(p)
	return true
}

// empty says that a field is left out if its tag says omitempty.
func empty(v reflect.Value) bool {
	if k := v.Kind(); k == reflect.Slice || k == reflect.String {
		return v.Len() == 0
	}
	return v.IsZero()
}

// fieldsOf are the fields of a struct in the order in which they are encoded; not ok if
// one of them is not read in one pass.
func fieldsOf(t reflect.Type, above []reflect.Type) (fields []field, ok bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := cmp.Or(f.Tag.Get("cbor"), f.Tag.Get("json"))
		switch {
		case f.Anonymous || f.Name == "_":
			return nil, false
		case !f.IsExported() || tag == "-":
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if name == "" {
			name = f.Name
		}
		x := field{name: name, index: i, omit: options == "omitempty", read: makeReader(f.Type, above)}
		x.key = string(append(appendHead(nil, majorText, uint64(len(name))), name...))
		k := f.Type.Kind()
		switch {
		case x.read == nil || options != "" && !x.omit || x.omit && (k == reflect.Struct || k == reflect.Array || f.Type == rawType):
			return nil, false
		case slices.ContainsFunc(fields, func(o field) bool { return o.name == name }):
			return nil, false
		}
		fields = append(fields, x)
	}
	slices.SortFunc(fields, func(a, b field) int {
		return cmp.Or(cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	return fields, true
}
