package graph

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// maxLine is the longest line, in bytes, that ParseGraph reads.
const maxLine = 1 << 20

// maxParents is how many parents an event may have: far more than nodes let pass.
const maxParents = 4096

// LineError is a line that does not belong into a graph.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// ParseGraph reads the text form. Its errors name the line.
func ParseGraph(r io.Reader) (*Graph, error) {
	p := parser{g: &Graph{}, index: map[int64]int{}, members: map[uint64]bool{}}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxLine)
	line := 0
	for sc.Scan() {
		line++
		if err := p.line(strings.Fields(sc.Text())); err != nil {
			return nil, &LineError{line, err}
		}
	}
	if err := sc.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, &LineError{line + 1, fmt.Errorf("it is longer than %d bytes", maxLine)}
	} else if err != nil {
		return nil, fmt.Errorf("read graph: %w", err)
	}
	if err := p.end(); err != nil {
		return nil, &LineError{line, err}
	}
	return p.g, nil
}

// parser is a graph on the way, and what lines refer to.
type parser struct {
	g       *Graph
	index   map[int64]int   // of events, by id
	members map[uint64]bool // of some roster
	hasR    bool            // in this block
	hasN    bool
}

func (p *parser) line(f []string) error {
	if len(f) == 0 || strings.HasPrefix(f[0], "#") {
		return nil
	}
	if len(p.g.Rules) == 0 {
		p.g.Rules = []Rules{{From: 1}}
	}
	kind, args := f[0], f[1:]
	switch {
	case kind == "H" && len(args) == 2:
		return p.hash(args)
	case kind == "R" && (len(args) == 5 || len(args) == 6), kind == "N" && len(args) == 2,
		kind == "U" && len(args) == 1, kind == "E" && len(args) >= 6:
	case shapes[kind] != "":
		return fmt.Errorf("%s with %d fields: want %s", kind, len(args), shapes[kind])
	default:
		return fmt.Errorf("%s begins no line of a graph: want R, N, E, U, H or #", quote(kind))
	}
	n := make([]int64, len(args))
	for i, a := range args {
		v, err := strconv.ParseInt(a, 10, 64)
		if err != nil {
			return fmt.Errorf("%s is not a number of 64 bits", quote(a))
		}
		if v < 0 && !(kind == "E" && (i == 1 || i == 5 && v == -1)) {
			return fmt.Errorf("%d is below 0: only the time of an event may be, and -1 in place of a self-parent", v)
		}
		n[i] = v
	}
	switch kind {
	case "R":
		return p.params(n)
	case "N":
		return p.member(uint64(n[0]), uint64(n[1]))
	case "U":
		return p.until(uint64(n[0]))
	}
	return p.event(n)
}

var shapes = map[string]string{
	"R": "R coinInterval nonAncientRounds judgeAny seeNum seeDen [whiten]",
	"N": "N memberID stake",
	"E": "E id time creatorID birthRound coin selfParent(or -1) otherParents...",
	"U": "U round",
	"H": "H id hash",
}

// quote is a word of the input, cut if it is long.
func quote(s string) string {
	if len(s) > 40 {
		return strconv.Quote(s[:40]) + "..."
	}
	return strconv.Quote(s)
}

func (p *parser) rules() *Rules { return &p.g.Rules[len(p.g.Rules)-1] }

func (p *parser) params(n []int64) error {
	switch {
	case p.hasR:
		return errors.New("a second line R for the same rounds")
	case n[0] == 0:
		return errors.New("a coin interval of 0 has no coin rounds: want 1 at least")
	case n[4] == 0 || n[3] > math.MaxUint32 || n[4] > math.MaxUint32:
		return fmt.Errorf("%d/%d is no fraction of stake: want numbers up to %d, and not over 0", n[3], n[4], uint32(math.MaxUint32))
	case n[2] > 1 || len(n) == 6 && n[5] > 1:
		return errors.New("judgeAny and whiten are 0 or 1")
	}
	p.hasR = true
	p.rules().Params = Params{
		CoinInterval: uint64(n[0]), NonAncientRounds: uint64(n[1]), JudgeAny: n[2] == 1,
		SeeNum: uint64(n[3]), SeeDen: uint64(n[4]), Whiten: len(n) == 6 && n[5] == 1,
	}
	return nil
}

func (p *parser) member(id, stake uint64) error {
	r := p.rules()
	if !p.hasN {
		r.Members, p.hasN = nil, true // not those of the rules before
	}
	if k := len(r.Members); k > 0 && r.Members[k-1].ID >= id {
		return fmt.Errorf("member %d comes after member %d: want each once, in increasing order", id, r.Members[k-1].ID)
	}
	if len(r.Members) == MaxMembers {
		return fmt.Errorf("member %d is one too many: a roster has %d at most", id, MaxMembers)
	}
	total := stake
	for _, m := range r.Members {
		total += m.Stake
	}
	if stake > math.MaxInt64/3 || total > math.MaxInt64/3 {
		return fmt.Errorf("the stake of member %d brings the total above %d", id, math.MaxInt64/3)
	}
	r.Members = append(r.Members, Member{id, stake})
	p.members[id] = true
	return nil
}

func (p *parser) until(round uint64) error {
	if err := p.check(); err != nil {
		return err
	}
	last := *p.rules()
	if round <= last.From {
		return fmt.Errorf("round %d is not after round %d, from which the rules above hold", round, last.From)
	}
	last.From = round
	p.hasR, p.hasN = false, false
	p.g.Rules = append(p.g.Rules, last)
	return nil
}

// check looks at rules that are complete.
func (p *parser) check() error {
	r := p.rules()
	var total uint64
	for _, m := range r.Members {
		total += m.Stake
	}
	high1, _ := bits.Mul64(r.SeeDen, total)
	high2, _ := bits.Mul64(r.SeeNum, total)
	switch {
	case r.CoinInterval == 0:
		return errors.New("there is no line R with the rules above this one")
	case len(r.Members) == 0:
		return errors.New("there is no line N with a member above this one")
	case total == 0:
		return errors.New("no member above this line has a stake: want 1 at least")
	case high1 != 0 || high2 != 0:
		return fmt.Errorf("%d/%d of a stake of %d goes beyond 64 bits: want smaller numbers", r.SeeNum, r.SeeDen, total)
	}
	return nil
}

func (p *parser) event(n []int64) error {
	id := n[0]
	e := Event{ID: id, Time: n[1], Creator: uint64(n[2]), Birth: uint64(n[3]), Coin: uint32(n[4]), SelfParent: None}
	if _, twice := p.index[id]; twice {
		return fmt.Errorf("event %d is there already", id)
	}
	if !p.members[e.Creator] {
		return fmt.Errorf("event %d is by %d, who is no member above this line", id, e.Creator)
	}
	if n[4] > math.MaxUint32 {
		return fmt.Errorf("event %d has coin %d: want one of 32 bits", id, n[4])
	}
	if len(n)-5 > maxParents {
		return fmt.Errorf("event %d has %d parents: want %d at most", id, len(n)-5, maxParents)
	}
	for i, name := range n[5:] {
		if i == 0 && name == -1 {
			continue
		}
		q, ok := p.index[name]
		switch {
		case !ok:
			return fmt.Errorf("event %d names parent %d, which is not above it", id, name)
		case i == 0 && p.g.Events[q].Creator != e.Creator:
			return fmt.Errorf("event %d by %d names self-parent %d, which is by %d", id, e.Creator, name, p.g.Events[q].Creator)
		case slices.Contains(e.Parents, q):
			return fmt.Errorf("event %d names parent %d twice", id, name)
		case i == 0:
			e.SelfParent = q
		}
		e.Parents = append(e.Parents, q)
	}
	p.index[id] = len(p.g.Events)
	p.g.Events = append(p.g.Events, e)
	return nil
}

func (p *parser) hash(args []string) error {
	id, err := strconv.ParseInt(args[0], 10, 64)
	if err != nil {
		return fmt.Errorf("%s is not a number of 64 bits", quote(args[0]))
	}
	x, ok := p.index[id]
	if !ok {
		return fmt.Errorf("there is no event %d above its hash", id)
	}
	b, err := hex.DecodeString(args[1])
	if err != nil || len(b) != 32 {
		return fmt.Errorf("%s is no hash: want 64 hexadecimal digits", quote(args[1]))
	}
	p.g.Events[x].Hash = [32]byte(b)
	return nil
}

// end looks at the whole.
func (p *parser) end() error {
	if len(p.g.Rules) == 0 {
		return errors.New("the graph is empty: want lines R, N and E")
	}
	return p.check()
}
