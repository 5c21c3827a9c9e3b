package graph

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Sizes of the picture, in pixels.
const (
	margin  = 28
	heading = 92 // above the graph
	footing = 56 // below it
	rowGap  = 46
	laneGap = 34 // between branches of one member
	colGap  = 84 // between members
	dot     = 11 // radius of an event
	legend  = 236
)

// hues are the colours of the rounds received, in turn: neighbours differ well, and
// black text can be read on each.
var hues = []string{"#8ecdf0", "#ffd479", "#a8dd8f", "#f7a8b8", "#c9b6f2", "#ffb27d", "#86dccb", "#dcc48e", "#b5c7e8", "#e6e27a"}

const style = `<style>
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:#1f2933}
.h1{font-size:17px;font-weight:600}.h2{font-size:12px;fill:#52606d}
.id{font-size:9.5px;text-anchor:middle;fill:#1f2933}.r{font-size:9px;fill:#52606d;text-anchor:end}
.m{font-size:13px;font-weight:600;text-anchor:middle}.s{font-size:11px;fill:#7b8794;text-anchor:middle}
.l{font-size:12px}.n{font-size:12px;text-anchor:end}.b{font-size:10px;font-weight:700;text-anchor:middle}
.o{stroke:#9aa5b1;stroke-width:1;opacity:.6}.p{stroke:#52606d;stroke-width:2.4}.f{stroke:#d64545;stroke-width:2.4;stroke-dasharray:5 3}
.e .k{stroke:#616e7c;stroke-width:1.2}.w .k{stroke:#1f2933;stroke-width:2}.u .k{stroke-dasharray:3 2}.x .k{stroke:#d64545;stroke-width:2}
.g{fill:#f0b429;stroke:#b7791f;stroke-width:1}.e:hover .k{stroke:#0967d2;stroke-width:3.5}
</style>
`

// picture is a graph on its way to SVG.
type picture struct {
	*verdicts
	o      DrawOptions
	b      strings.Builder
	level  []int // of each event, from 0: one more than the highest of its parents
	lane   []int // of each event, within its member's column
	column []int // of each event: its member's place
	left   []int // x of the first lane of each member
	lanes  []int // of each member
	width  int   // of the graph, without the legend
	height int
}

// layout gives each event its level and its lane. A branch has a lane that is free from
// where it begins, so that no line runs over another event of the member.
func (p *picture) layout() {
	g := p.g
	ids := g.MemberIDs()
	p.level, p.lane = make([]int, len(g.Events)), make([]int, len(g.Events))
	p.lanes = make([]int, len(ids))
	top := make([][]int, len(ids)) // the highest level used in each lane
	high := 0
	for x, e := range g.Events {
		for _, q := range e.Parents {
			p.level[x] = max(p.level[x], p.level[q]+1)
		}
		high = max(high, p.level[x])
		m, _ := slices.BinarySearch(ids, e.Creator)
		lane := len(top[m])
		if sp := e.SelfParent; sp != None {
			if top[m][p.lane[sp]] == p.level[sp] { // nothing came after it yet
				lane = p.lane[sp]
			} else if free := slices.IndexFunc(top[m], func(l int) bool { return l < p.level[sp] }); free >= 0 {
				lane = free
			}
		}
		if lane == len(top[m]) {
			top[m] = append(top[m], None)
		}
		p.column, p.lane[x], top[m][lane] = append(p.column, m), lane, p.level[x]
		p.lanes[m] = max(p.lanes[m], len(top[m]))
	}
	at := margin + 40
	for m := range ids {
		p.left = append(p.left, at)
		p.lanes[m] = max(1, p.lanes[m])
		at += (p.lanes[m]-1)*laneGap + colGap
	}
	p.width = at - colGap + 40
	p.height = heading + footing + high*rowGap + 2*rowGap
	p.height = max(p.height, heading+200+17*(len(p.table)+len(p.g.Rules)))
}

func (p *picture) xy(x int) (int, int) {
	return p.left[p.column[x]] + p.lane[x]*laneGap, p.height - footing - rowGap - p.level[x]*rowGap
}

func (p *picture) f(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }

// escape makes text safe in XML, whatever is in it.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

func (p *picture) render() string {
	w := max(p.width+legend, 520) + margin
	p.f(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">`, w, p.height, w, p.height)
	p.f("<title>%s</title>", escape(p.o.Title))
	p.b.WriteString(style)
	p.f(`<rect width="%d" height="%d" fill="#fff"/>`, w, p.height)
	year := "2026"
	if p.o.Rules2016 {
		year = "2016"
	}
	p.f(`<text class="h1" x="%d" y="32">%s</text>`, margin, escape(p.o.Title))
	p.f(`<text class="h2" x="%d" y="51">%s, %s, %s decided by the rules of %s. Time runs upwards.</text>`, margin,
		count(len(p.left), "member"), count(len(p.g.Events), "event"), count(len(p.table), "round"), year)
	p.columns()
	p.edges()
	for x := range p.g.Events {
		p.event(x)
	}
	p.key(p.width + margin)
	p.b.WriteString("</svg>\n")
	return p.b.String()
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// columns draws a band for each member, named at both ends.
func (p *picture) columns() {
	for i, m := range p.g.roster() {
		w := (p.lanes[i]-1)*laneGap + 44
		x := p.left[i] - 22
		p.f(`<rect x="%d" y="%d" width="%d" height="%d" rx="8" fill="#f5f7fa"/>`, x, heading, w, p.height-heading-footing)
		for _, y := range []int{heading - 20, p.height - footing + 18} {
			p.f(`<text class="m" x="%d" y="%d">%d</text><text class="s" x="%d" y="%d">%s</text>`, x+w/2, y, m.ID, x+w/2, y+14, stakeText(m.Stake))
		}
	}
}

// stakeText is short enough for a column.
func stakeText(s uint64) string {
	if s < 1e5 {
		return "stake " + strconv.FormatUint(s, 10)
	}
	return fmt.Sprintf("%.2g", float64(s))
}

// edges draws lines from events to their parents: others first, so that the chains of
// the members lie above them.
func (p *picture) edges() {
	p.f("<g>")
	for x, e := range p.g.Events {
		for _, q := range e.Parents {
			if q != e.SelfParent {
				p.line("o", x, q)
			}
		}
	}
	for x, e := range p.g.Events {
		if e.SelfParent == None {
			continue
		}
		class := "p"
		if p.marks[x].fork {
			class = "f"
		}
		p.line(class, x, e.SelfParent)
	}
	p.f("</g>")
}

func (p *picture) line(class string, from, to int) {
	x1, y1 := p.xy(from)
	x2, y2 := p.xy(to)
	p.f(`<line class="%s" x1="%d" y1="%d" x2="%d" y2="%d"/>`, class, x1, y1, x2, y2)
}

// event draws one event with its tooltip.
func (p *picture) event(x int) {
	cx, cy := p.xy(x)
	m := p.marks[x]
	p.f(`<g class="%s"><title>%s</title>`, class(m), escape(p.tooltip(x, p.o.Rules2016)))
	p.symbol(cx, cy, m)
	if id := strconv.FormatInt(p.g.Events[x].ID, 10); len(id) <= 4 {
		p.f(`<text class="id" x="%d" y="%.1f">%s</text>`, cx, float64(cy)+3.4, id)
	}
	if len(m.rounds) > 0 {
		p.f(`<text class="r" x="%d" y="%d">%d</text>`, cx-dot-7, cy-dot+4, m.rounds[len(m.rounds)-1])
	}
	p.f("</g>")
}

// class names the looks of an event in the style sheet.
func class(m mark) string {
	c := "e"
	if m.standing != plain {
		c += " w"
	}
	if m.standing == open {
		c += " u"
	}
	if m.fork {
		c += " x"
	}
	return c
}

// symbol draws the shape of an event around a point.
func (p *picture) symbol(cx, cy int, m mark) {
	fill := "#fff"
	switch {
	case m.received > 0:
		fill = hues[int((m.received-1)%uint64(len(hues)))]
	case m.stale:
		fill = "#cbd2d9"
	}
	if m.standing == judge {
		p.f(`<rect class="g" x="%d" y="%d" width="%d" height="%d" rx="6"/>`, cx-dot-4, cy-dot-4, 2*dot+8, 2*dot+8)
	}
	if m.standing == plain {
		p.f(`<circle class="k" cx="%d" cy="%d" r="%d" fill="%s"/>`, cx, cy, dot, fill)
	} else {
		p.f(`<rect class="k" x="%d" y="%d" width="%d" height="%d" rx="3" fill="%s"/>`, cx-dot, cy-dot, 2*dot, 2*dot, fill)
	}
	switch m.standing {
	case judge:
		p.star(float64(cx+dot+2), float64(cy-dot-2))
	case famous:
		p.badge(cx+dot+1, cy-dot-1, "#f0b429", "")
	case rejected:
		p.badge(cx+dot+1, cy-dot-1, "#7b8794", "×")
	case open:
		p.badge(cx+dot+1, cy-dot-1, "#7b8794", "?")
	}
	if m.fork {
		p.f(`<path d="M%d %dv-4m0 0l-3.5-4m3.5 4l3.5-4" transform="translate(0 2)" fill="none" stroke="#d64545" stroke-width="1.8"/>`, cx-dot-5, cy+dot)
	}
}

// star has five points.
func (p *picture) star(cx, cy float64) {
	var d strings.Builder
	for i := range 10 {
		r := 7.0
		if i%2 == 1 {
			r = 3
		}
		a := math.Pi * (float64(i)/5 - 0.5)
		fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(i, 1)], cx+r*math.Cos(a), cy+r*math.Sin(a))
	}
	p.f(`<path d="%sz" fill="#f0b429" stroke="#8d5b0c" stroke-width=".8"/>`, d.String())
}

func (p *picture) badge(cx, cy int, fill, text string) {
	p.f(`<circle cx="%d" cy="%d" r="5.5" fill="%s"/><text class="b" x="%d" y="%.1f" style="fill:#fff">%s</text>`, cx, cy, fill, cx, float64(cy)+3.5, text)
}

// key explains the picture and lists its rounds.
func (p *picture) key(x int) {
	y := heading - 6
	item := func(m mark, text string) {
		p.f(`<g class="%s">`, class(m))
		p.symbol(x+dot+4, y, m)
		p.f(`<text class="l" x="%d" y="%d">%s</text></g>`, x+46, y+4, text)
		y += 34
	}
	item(mark{}, "event, not received yet")
	if p.o.Rules2016 {
		item(mark{standing: open}, "witness, fame undecided")
		item(mark{standing: rejected}, "witness, not famous")
		item(mark{standing: judge}, "witness, famous: a judge")
		if slices.ContainsFunc(p.marks, func(m mark) bool { return m.standing == famous }) {
			item(mark{standing: famous}, "famous, not the judge")
		}
	} else {
		item(mark{standing: open}, "witness of the pending round")
		item(mark{standing: rejected}, "witness, no judge")
		item(mark{standing: judge}, "witness, a judge")
	}
	if slices.ContainsFunc(p.marks, func(m mark) bool { return m.fork }) {
		item(mark{fork: true}, "fork: a second event in place")
	}
	if slices.ContainsFunc(p.marks, func(m mark) bool { return m.stale }) {
		item(mark{stale: true}, "stale: never to be received")
	}
	p.f(`<text class="h2" x="%d" y="%d">Left of a witness: its round</text>`, x, y+2)
	p.rounds(x, y+34)
}

func (p *picture) rounds(x, y int) {
	if len(p.table) == 0 {
		p.f(`<text class="l" x="%d" y="%d">No round is decided.</text>`, x, y)
		return
	}
	p.f(`<text class="h2" x="%d" y="%d">Colour: round received</text>`, x, y)
	p.f(`<text class="n h2" x="%d" y="%d">judges</text><text class="n h2" x="%d" y="%d">events</text>`, x+104, y+18, x+154, y+18)
	y += 36
	next := 1
	for _, s := range p.table {
		for ; next < len(p.g.Rules) && p.g.Rules[next].From <= s.round; next++ {
			p.f(`<text class="h2" x="%d" y="%d">rules change at round %d</text>`, x, y, p.g.Rules[next].From)
			y += 17
		}
		p.f(`<rect x="%d" y="%d" width="14" height="12" rx="3" fill="%s" stroke="#616e7c"/>`, x, y-10, hues[int((s.round-1)%uint64(len(hues)))])
		p.f(`<text class="n" x="%d" y="%d">%d</text><text class="n" x="%d" y="%d">%d</text><text class="n" x="%d" y="%d">%d</text><text class="h2" x="%d" y="%d">%s</text>`,
			x+46, y, s.round, x+104, y, s.judges, x+154, y, s.received, x+164, y, s.note)
		y += 17
	}
}
