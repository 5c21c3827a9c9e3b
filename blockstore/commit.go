package blockstore

import (
	"bytes"
	"errors"
	"fmt"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	mh "github.com/multiformats/go-multihash"
)

// Kind says what an image is for; a machine's disk is layered from all three.
type Kind string

// The kinds of image.
const (
	OS          Kind = "os"          // an installed system
	Environment Kind = "environment" // programs and settings over a system
	User        Kind = "user"        // a user's data
)

// commitVersion is the version of the commit node that this package writes and reads.
const commitVersion = 1

// Bounds of a commit, so that a hostile one costs little.
const (
	maxCommit   = 64 << 10 // bytes, encoded
	maxDisks    = 64
	maxDiskSize = 64 << 40 // bytes
	maxText     = 4096     // bytes of Append and Author
)

// Commit is the top of an image. Equal commits have equal encodings, so equal CIDs.
type Commit struct {
	Version int     // 1
	Parent  cid.Cid // the commit that this one was made from; cid.Undef: none
	Kind    Kind
	Disks   []Disk
	// Kernel and Initrd are UnixFS files to boot from; cid.Undef: none. Their
	// sizes are in bytes.
	Kernel     cid.Cid
	KernelSize int64
	Initrd     cid.Cid
	InitrdSize int64
	Append     string // kernel command line
	Author     string
	Time       int64 // seconds since 1970
	Bytes      int64 // of leaves that are not holes
}

// Disk is one disk of an image: the whole disk, as of this commit.
type Disk struct {
	Name string // lower case letters, digits, '-', '_' and '.'; unique in the commit
	Size int64  // bytes, a multiple of 512
	Root cid.Cid
}

// file is a UnixFS file by its root.
type file struct {
	root cid.Cid
	size int64
}

// files are every file of the commit: disks, kernel, initrd.
func (c Commit) files() []file {
	var fs []file
	for _, d := range c.Disks {
		fs = append(fs, file{d.Root, d.Size})
	}
	if c.Kernel.Defined() {
		fs = append(fs, file{c.Kernel, c.KernelSize})
	}
	if c.Initrd.Defined() {
		fs = append(fs, file{c.Initrd, c.InitrdSize})
	}
	return fs
}

// check says why c is not a proper commit.
func (c Commit) check() error {
	switch {
	case c.Version != commitVersion:
		return fmt.Errorf("commit version %d is not known here (%d is): upgrade this node", c.Version, commitVersion)
	case c.Kind != OS && c.Kind != Environment && c.Kind != User:
		return fmt.Errorf("kind %q: use os, environment or user", c.Kind)
	case len(c.Disks) > maxDisks:
		return fmt.Errorf("%d disks: at most %d", len(c.Disks), maxDisks)
	case len(c.Append) > maxText || len(c.Author) > maxText:
		return fmt.Errorf("append or author longer than %d bytes", maxText)
	case c.Time < 0 || c.Bytes < 0:
		return errors.New("negative time or size")
	case c.Parent.Defined() && checkCID(c.Parent, cid.DagCBOR) != nil:
		return errors.New("parent is not a commit's CID")
	case len(c.files()) == 0:
		return errors.New("neither disk nor kernel")
	}
	names := make(map[string]bool)
	for _, d := range c.Disks {
		if !diskName(d.Name) || names[d.Name] {
			return fmt.Errorf("disk name %q is empty, taken, or has odd characters", d.Name)
		}
		names[d.Name] = true
		if d.Size%512 != 0 {
			return fmt.Errorf("disk %s: size %d is not a multiple of 512", d.Name, d.Size)
		}
	}
	for _, f := range c.files() {
		if f.size <= 0 || f.size > maxDiskSize {
			return fmt.Errorf("file %s: size %d is out of range", f.root, f.size)
		}
		if err := checkCID(f.root, cid.Raw, cid.DagProtobuf); err != nil {
			return err
		}
	}
	return nil
}

func diskName(s string) bool {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// checkCID accepts the CIDs of this package's images: version 1, SHA-256, one of the codecs.
func checkCID(c cid.Cid, codecs ...uint64) error {
	if !c.Defined() {
		return fmt.Errorf("%w: undefined CID", ErrFormat)
	}
	p := c.Prefix()
	for _, codec := range codecs {
		if p.Version == 1 && p.MhType == mh.SHA2_256 && p.MhLength == 32 && p.Codec == codec {
			return nil
		}
	}
	return fmt.Errorf("%w: CID %s: want version 1, sha2-256, and another codec", ErrFormat, c)
}

// encode gives the one encoding of c as a block.
func (c Commit) encode() (blocks.Block, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%w: commit: %w", ErrFormat, err)
	}
	node, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "version", qp.Int(int64(c.Version)))
		qp.MapEntry(m, "kind", qp.String(string(c.Kind)))
		qp.MapEntry(m, "disks", qp.List(int64(len(c.Disks)), func(l datamodel.ListAssembler) {
			for _, d := range c.Disks {
				qp.ListEntry(l, diskNode(d))
			}
		}))
		qp.MapEntry(m, "time", qp.Int(c.Time))
		qp.MapEntry(m, "bytes", qp.Int(c.Bytes))
		optional(m, "parent", c.Parent)
		optionalFile(m, "kernel", c.Kernel, c.KernelSize)
		optionalFile(m, "initrd", c.Initrd, c.InitrdSize)
		optionalText(m, "append", c.Append)
		optionalText(m, "author", c.Author)
	})
	if err != nil {
		return nil, fmt.Errorf("encode commit: %w", err)
	}
	var buf bytes.Buffer
	if err := dagcbor.Encode(node, &buf); err != nil {
		return nil, fmt.Errorf("encode commit: %w", err)
	}
	if buf.Len() > maxCommit {
		return nil, fmt.Errorf("%w: commit of %d bytes: at most %d", ErrFormat, buf.Len(), maxCommit)
	}
	return blocks.NewBlockWithCid(buf.Bytes(), cid.NewCidV1(cid.DagCBOR, hashOf(buf.Bytes())))
}

func diskNode(d Disk) qp.Assemble {
	return qp.Map(3, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "name", qp.String(d.Name))
		qp.MapEntry(m, "size", qp.Int(d.Size))
		qp.MapEntry(m, "root", qp.Link(cidlink.Link{Cid: d.Root}))
	})
}

func optional(m datamodel.MapAssembler, k string, c cid.Cid) {
	if c.Defined() {
		qp.MapEntry(m, k, qp.Link(cidlink.Link{Cid: c}))
	}
}

func optionalFile(m datamodel.MapAssembler, k string, c cid.Cid, size int64) {
	if c.Defined() {
		qp.MapEntry(m, k, qp.Map(2, func(m datamodel.MapAssembler) {
			qp.MapEntry(m, "root", qp.Link(cidlink.Link{Cid: c}))
			qp.MapEntry(m, "size", qp.Int(size))
		}))
	}
}

func optionalText(m datamodel.MapAssembler, k, v string) {
	if v != "" {
		qp.MapEntry(m, k, qp.String(v))
	}
}

// decodeCommit reads a commit. It is strict: whatever does not encode back to
// the same bytes is refused, so unknown fields, other orders and paddings are.
func decodeCommit(data []byte) (Commit, error) {
	if len(data) > maxCommit {
		return Commit{}, fmt.Errorf("%w: commit of %d bytes: at most %d", ErrFormat, len(data), maxCommit)
	}
	b := basicnode.Prototype.Any.NewBuilder()
	opts := dagcbor.DecodeOptions{AllowLinks: true, AllocationBudget: 1 << 20, MaxDepth: 8}
	if err := opts.Decode(b, bytes.NewReader(data)); err != nil {
		return Commit{}, fmt.Errorf("%w: commit: %w", ErrFormat, err)
	}
	r := reader{}
	c := r.commit(b.Build())
	if r.err != nil {
		return Commit{}, fmt.Errorf("%w: commit: %w", ErrFormat, r.err)
	}
	again, err := c.encode()
	if err != nil {
		return Commit{}, err
	}
	if !bytes.Equal(again.RawData(), data) {
		return Commit{}, fmt.Errorf("%w: commit has unknown fields or another encoding: upgrade this node if it is new", ErrFormat)
	}
	return c, nil
}

// reader takes a node apart and keeps the first error.
type reader struct{ err error }

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) commit(n datamodel.Node) Commit {
	c := Commit{
		Version: int(r.number(n, "version")), Kind: Kind(r.text(n, "kind", true)),
		Time: r.number(n, "time"), Bytes: r.number(n, "bytes"),
		Append: r.text(n, "append", false), Author: r.text(n, "author", false),
		Parent: r.link(n, "parent", false),
	}
	c.Kernel, c.KernelSize = r.file(n, "kernel")
	c.Initrd, c.InitrdSize = r.file(n, "initrd")
	disks := r.field(n, "disks", true)
	if disks == nil || disks.Kind() != datamodel.Kind_List {
		r.fail(errors.New("disks is not a list"))
		return c
	}
	for it := disks.ListIterator(); !it.Done(); {
		_, d, err := it.Next()
		if err != nil {
			r.fail(err)
			return c
		}
		c.Disks = append(c.Disks, Disk{
			Name: r.text(d, "name", true), Size: r.number(d, "size"), Root: r.link(d, "root", true),
		})
	}
	return c
}

func (r *reader) file(n datamodel.Node, k string) (cid.Cid, int64) {
	f := r.field(n, k, false)
	if f == nil {
		return cid.Undef, 0
	}
	return r.link(f, "root", true), r.number(f, "size")
}

// field looks k up; nil where it is absent.
func (r *reader) field(n datamodel.Node, k string, must bool) datamodel.Node {
	if n.Kind() != datamodel.Kind_Map {
		r.fail(errors.New("not a map"))
		return nil
	}
	v, err := n.LookupByString(k)
	if err != nil {
		if must {
			r.fail(fmt.Errorf("no field %q", k))
		}
		return nil
	}
	return v
}

func (r *reader) number(n datamodel.Node, k string) int64 {
	v := r.field(n, k, true)
	if v == nil {
		return 0
	}
	i, err := v.AsInt()
	if err != nil {
		r.fail(fmt.Errorf("field %q: %w", k, err))
	}
	return i
}

func (r *reader) text(n datamodel.Node, k string, must bool) string {
	v := r.field(n, k, must)
	if v == nil {
		return ""
	}
	s, err := v.AsString()
	if err != nil {
		r.fail(fmt.Errorf("field %q: %w", k, err))
	}
	return s
}

func (r *reader) link(n datamodel.Node, k string, must bool) cid.Cid {
	v := r.field(n, k, must)
	if v == nil {
		return cid.Undef
	}
	l, err := v.AsLink()
	if err != nil {
		r.fail(fmt.Errorf("field %q: %w", k, err))
		return cid.Undef
	}
	if cl, ok := l.(cidlink.Link); ok {
		return cl.Cid
	}
	r.fail(fmt.Errorf("field %q: not a CID", k))
	return cid.Undef
}
