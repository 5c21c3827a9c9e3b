package ledger

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// maxWord bounds a name in a sentence, in bytes.
const maxWord = 64

// printable is text of others as it may stand on a terminal and in one line, cut to at
// most n bytes.
func printable(text string, n int) string {
	var b strings.Builder
	for _, r := range text {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			r = '·'
		}
		if b.Len()+len(string(r)) > n {
			b.WriteString("…")
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Printable is text of others as it may stand on a terminal and in one line.
func Printable(text string) string { return printable(text, maxReason) }

// name is a name that may have been refused: quoted if it is not one.
func name(s string) string {
	for _, r := range s {
		if r > unicode.MaxASCII || !(unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_.:/@+", r)) {
			return strconv.Quote(printable(s, maxWord))
		}
	}
	if s == "" {
		return `""`
	}
	return printable(s, maxWord)
}

func ref(image, tag string) string {
	if tag == "" {
		return name(image)
	}
	return name(image + ":" + tag)
}

// short is the start of a key or a digest, by which people tell them apart.
func short(b []byte) string {
	if len(b) == 0 {
		return "(none)"
	}
	return hex.EncodeToString(b[:min(len(b), 4)])
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + printable(reason, maxReason)
}

func inRegion(r string) string {
	if r == "" {
		return ""
	}
	return " in region " + name(r)
}

func forAccount(a string) string {
	if a == "" {
		return ""
	}
	return " for account " + name(a)
}

func forced(force bool) string {
	if !force {
		return ""
	}
	return ", with its machines"
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

func list(parts []string, none string) string {
	if len(parts) == 0 {
		return none
	}
	return strings.Join(parts, ", ")
}

// boundedSum adds what may be hostile.
func boundedSum(a, b int64) int64 {
	if c := a + b; a < 0 || b < 0 || c >= 0 {
		return c
	}
	return 1<<63 - 1
}

// Bytes is a size for people.
func Bytes(n int64) string {
	for i, unit := range []string{"PiB", "TiB", "GiB", "MiB", "KiB"} {
		if one := int64(1) << (50 - 10*i); n >= one {
			return tenth(float64(n)/float64(one)) + " " + unit
		}
	}
	return strconv.FormatInt(n, 10) + " B"
}

// tenth has one digit after the point where it matters.
func tenth(f float64) string {
	if f >= 99.95 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
}

// Millis is a time of that many milliseconds for people.
func Millis(ms int64) string {
	if ms < 1000 {
		return strconv.FormatInt(ms, 10) + " ms"
	}
	if ms < 600_000 {
		return tenth(float64(ms)/1000) + " s"
	}
	return tenth(float64(ms)/60_000) + " min"
}

func micros(us int64) string {
	if us < 1000 {
		return strconv.FormatInt(us, 10) + " µs"
	}
	return tenth(float64(us)/1000) + " ms"
}

// Duration is a length of consensus time for people.
func Duration(t Time) string {
	switch {
	case t < 2*Minute:
		return Millis(int64(t / Millisecond))
	case t < 2*Hour:
		return tenth(float64(t)/float64(Minute)) + " min"
	case t < 2*Day:
		return tenth(float64(t)/float64(Hour)) + " h"
	}
	return tenth(float64(t)/float64(Day)) + " days"
}

func (q Quota) say() string {
	var parts []string
	if q.Machines != 0 {
		parts = append(parts, fmt.Sprintf("%d machines", q.Machines))
	}
	if q.Memory != 0 {
		parts = append(parts, Bytes(q.Memory)+" of memory")
	}
	if q.Images != 0 {
		parts = append(parts, fmt.Sprintf("%d images", q.Images))
	}
	return list(parts, "no bounds")
}

func (l Limits) clause() string {
	var b strings.Builder
	if l.MaxDowntime != 0 {
		b.WriteString(", a pause of at most " + Millis(l.MaxDowntime))
	}
	if l.Bandwidth != 0 {
		b.WriteString(", at most " + Bytes(l.Bandwidth) + "/s")
	}
	if l.PostCopy {
		b.WriteString(", with post-copy")
	}
	return b.String()
}

// clause is the policy as the end of a sentence; nothing if it allows everything.
func (p *Policy) clause() string {
	if s := p.say(); s != noPolicy {
		return "; its policy: " + s
	}
	return ""
}

const noPolicy = "it allows everything"

// say is a policy in words.
func (p *Policy) say() string {
	var parts []string
	names := func(what string, of []string) {
		if len(of) == 0 {
			return
		}
		shown := make([]string, 0, 8)
		for _, n := range of[:min(len(of), 8)] {
			shown = append(shown, name(n))
		}
		if more := len(of) - len(shown); more > 0 {
			shown = append(shown, fmt.Sprintf("%d more", more))
		}
		parts = append(parts, what+" "+strings.Join(shown, " "))
	}
	if p.Pinned {
		parts = append(parts, "it stays where it is")
	}
	names("only in regions", p.Regions)
	names("not in regions", p.NotRegions)
	names("only at", p.Sites)
	names("not at", p.NotSites)
	names("apart from", p.Apart)
	names("together with", p.With)
	if p.MaxDowntime != 0 {
		parts = append(parts, "a pause of at most "+Millis(p.MaxDowntime))
	}
	if p.MaxBandwidth != 0 {
		parts = append(parts, "at most "+Bytes(p.MaxBandwidth)+"/s")
	}
	if len(p.Windows) > 0 {
		parts = append(parts, "only in "+count(len(p.Windows), "window"))
	}
	if p.PostCopy {
		parts = append(parts, "post-copy is allowed")
	}
	if len(p.Movers) > 0 {
		names(fmt.Sprintf("a move needs %d of", max(p.Approvals, 1)), p.Movers)
	}
	return list(parts, noPolicy)
}
