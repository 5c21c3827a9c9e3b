package h26

import "math/bits"

// tally adds up stake behind each member: for many sets of members, each with a
// stake, how much stake names member m? Where all stakes are the same it counts all
// members at once, in binary, with one word for each digit.
type tally struct {
	digits [7]uint64
	held   [MaxMembers]uint64
}

// reset makes the tally ready for a new count.
func (r *roster) reset(t *tally) {
	if r.each != 0 {
		t.digits = [7]uint64{}
		return
	}
	clear(t.held[:r.n])
}

// add adds the stake of member by behind each member of a set.
func (r *roster) add(t *tally, set uint64, by int) {
	if r.each != 0 {
		for i := 0; set != 0; i++ {
			t.digits[i], set = t.digits[i]^set, t.digits[i]&set
		}
		return
	}
	stake := r.stake[by]
	for ; set != 0; set &= set - 1 {
		t.held[bits.TrailingZeros64(set)] += stake
	}
}

// above is the set of members with more stake behind them than a limit, which is not
// more than there is in total.
func (r *roster) above(t *tally, limit uint64) (more uint64) {
	if r.each == 0 {
		for m, h := range t.held[:r.n] {
			if h > limit {
				more |= 1 << m
			}
		}
		return more
	}
	count := limit / r.each
	same := r.all
	for i := len(t.digits) - 1; i >= 0; i-- {
		if count>>i&1 == 0 {
			more |= same & t.digits[i]
			same &^= t.digits[i]
		} else {
			same &= t.digits[i]
		}
	}
	return more
}
