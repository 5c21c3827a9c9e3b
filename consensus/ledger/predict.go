package ledger

// The model of a move. What it is made of was read off package node/migrate and the
// drivers; what the numbers are is fitted to measured moves. All of them stand here.
//
//	time  = setup + trips·rtt
//	      + image/r                              what the destination lacks, first
//	      + disk/r                               the machine's own disk, next
//	      + Σ memory_k/r_m + passes·(pass + passTrips·rtt)
//	memory_0     = memory
//	memory_(k+1) = min(dirty · duration_k, hot, memory)
//	disk         = own disk + what the guest writes to it meanwhile
//
// until what is left fits the allowed pause, or passes lead no further: then the
// driver throttles the guest. r is the bandwidth less what protocols take, within the
// move's cap; r_m is not more than the encoder makes. What is left after the last pass
// travels during the pause, with what the order of the release takes beside it:
//
//	pause = fixed + max(rest/r_m, order·rtt) + rtt
//
// Everything is multiplied by what moves of the machine (Habit) and on the path (Path)
// were beside what had been predicted.
const (
	setupMillis   = 300       // the order of the selection, starting the receiver, the end of the last disk pass
	setupTrips    = 3         // round trips: the order, streams being opened, windows being opened
	passMillis    = 40        // of memory: reading which pages are dirty, batches that are not full
	passTrips     = 1         // round trips of each pass
	overhead      = 1024 + 10 // bytes for 1024 of content: 1 % for frames; what is measured is without TLS, TCP and IP
	encodeRate    = 100 << 20 // bytes a second that the encoder of memory makes on a busy core
	alone         = 1280      // time that it takes in a move for 1024 alone: others use the processors too
	maxPasses     = 12
	pauseMillis   = 40 // stopping, device state, loading, starting
	pauseTrips    = 1
	orderTrips    = 2    // round trips until Release is ordered everywhere: some four one-way delays
	shareForRest  = 2    // the driver stops when what is left takes one of so many parts of the allowed pause
	one           = 1024 // what factors are in parts of
	unknownSpread = 256  // of a path without moves, in 1/1024
	unknownWeight = 2    // moves that it counts as
	unsureTimes   = 8    // as fast as an unsure bandwidth says a path may be: a busy host measured a tenth
	maxMillis     = int64(1) << 40
)

// work is what a forecast is made from.
type work struct {
	image, disk, memory int64 // bytes that travel once
	dirty               int64 // bytes a second
	hot                 int64 // bytes that dirty is about; 0: all of memory
	diskRate            int64 // bytes a second
	encodes             int64 // bytes a second; 0: not known
	rtt                 int64 // microseconds
	bandwidth           int64 // bytes a second, more than 0
	unsure              bool  // of the bandwidth
	limits              Limits
	habit               Habit
	path                *Path // or nil
}

// forecast is the model. It uses integers only, so that it is the same everywhere,
// and cannot overflow whatever the bids say.
func forecast(w work) Forecast {
	rate := w.bandwidth
	if w.limits.Bandwidth > 0 {
		rate = min(rate, w.limits.Bandwidth)
	}
	rate = max(scale(rate, one, overhead), 1)
	enc := memoryRate(rate, w.encodes)
	disk := scale(w.disk, factor(w.habit.Disk), one)
	memory := scale(w.memory, factor(w.habit.Memory), one)
	dirty := scale(w.dirty, factor(w.habit.Memory), one)
	hot := memory
	if w.hot > 0 {
		hot = min(hot, scale(w.hot, factor(w.habit.Memory), one))
	}
	passes, travels, rest := precopy(memory, dirty, hot, enc, w.limits)
	disk = plus(disk, meanwhile(w.diskRate, millis(disk, rate)+millis(travels, enc), rate))

	f := Forecast{Image: w.image, Disk: disk, Memory: plus(travels, rest), Bandwidth: rate}
	ms := plus(setupMillis, setupTrips*w.rtt/1000, millis(w.image, rate), millis(disk, rate),
		millis(travels, enc), passes*(passMillis+passTrips*w.rtt/1000))
	f.Millis = min(scale(ms, w.path.factor(), one), maxMillis)

	f.Pause = plus(pauseMillis, pauseTrips*w.rtt/1000, max(millis(rest, enc), orderTrips*w.rtt/1000))
	f.Pause = scale(f.Pause, factor(w.habit.Pause), one)
	f.Pause = min(f.Pause, max(w.limits.MaxDowntime, 1))

	spread := w.path.spread()
	f.Low, f.High = scale(f.Millis, one, one+spread), min(scale(f.Millis, one+spread, one), maxMillis)
	if w.unsure {
		w.bandwidth, w.unsure = min(w.bandwidth, int64(1)<<50)*unsureTimes, false
		f.Low = min(f.Low, forecast(w).Low)
	}
	f.PauseLow = scale(f.Pause, one, one+2*spread)
	f.PauseHigh = min(scale(f.Pause, one+2*spread, one), max(w.limits.MaxDowntime, f.Pause))
	return f
}

// memoryRate is how fast memory travels over a link of that rate.
func memoryRate(rate, encodes int64) int64 {
	rate = min(rate, encodeRate)
	if encodes > 0 {
		rate = min(rate, scale(encodes, one, alone))
	}
	return max(rate, 1)
}

// precopy is how memory travels while the guest writes it anew: in how many passes,
// how many bytes before the pause, and how many in it.
func precopy(memory, dirty, hot, rate int64, l Limits) (passes, travels, rest int64) {
	fits := scale(rate, max(l.MaxDowntime-pauseMillis, 10), 1000*shareForRest)
	rest = memory
	for rest > fits && passes < maxPasses || passes == 0 {
		travels = plus(travels, rest)
		passes++
		next := min(scale(dirty, millis(rest, rate), 1000), hot, memory)
		if next >= rest && passes > 1 { // it writes as fast as the link carries: it is throttled
			next = rest / 2
		}
		rest = next
		if l.PostCopy && passes == 2 {
			break
		}
	}
	return passes, travels, min(rest, fits)
}

// meanwhile is what a guest writes to its disks while so many milliseconds of other
// things travel, and while that itself does. Half of the link is left to the others.
func meanwhile(diskRate, ms, rate int64) int64 {
	return scale(scale(diskRate, min(ms, maxMillis), 1000), rate, max(rate-min(diskRate, rate/2), 1))
}

// millis is how long bytes take, rounded up.
func millis(bytes, rate int64) int64 { return scale(plus(bytes, rate/1000), 1000, rate) }

// Bounds of the factors that are learned, in 1/1024.
const (
	leastTrust, mostTrust = one / 4, 16 * one
	leastPath, mostPath   = one / 4, 4 * one
	leastHabit, mostHabit = one / 16, 16 * one
	// learnt is how much of what a move shows beyond the factor is taken over: 1 in so
	// many.
	learnt = 4
	// forgets is the same for what a bid takes off a member's factor.
	forgets = 32
	// judged is how long a move must have taken, in milliseconds, to say something of
	// its destination: consensus time is not exact.
	judged = 1000
)

// factor is a learned factor; 0 is one that nothing was learned for.
func factor(f uint64) int64 {
	if f == 0 {
		return one
	}
	return int64(min(f, mostTrust))
}

func (p *Path) factor() int64 {
	if p == nil {
		return one
	}
	return factor(p.Time)
}

// spread is how far nine in ten moves are from the prediction at most, in 1/1024:
// twice the mean deviation, which for a normal distribution is 1.6 standard
// deviations. A path of which little is known counts as an uncertain one.
func (p *Path) spread() int64 {
	if p == nil {
		return 2 * unknownSpread
	}
	n := int64(min(p.Moves, 1<<20))
	mean := (n*int64(min(p.Spread, mostTrust)) + unknownWeight*unknownSpread) / (n + unknownWeight)
	return 2 * mean
}

// took is how long a move took from its selection to its release, in milliseconds:
// what its source says, within what is known by consensus time. It was no shorter than
// from the one to the other, and it was over by then.
func took(mv *Move, said int64, by Time) int64 {
	least := max(int64((mv.ReleasedAt-mv.SelectedAt)/Millisecond), 0)
	most := max(int64((by-mv.SelectedAt)/Millisecond), least)
	said = max(said, int64(mv.After/Millisecond))
	return min(max(said, least), most, maxMillis)
}

// trust is a member's factor after a move that took so long and was predicted to take
// so long. What is near the factor moves it a little. A move that took far longer
// raises it to that at once, and by an eighth more: a member that promised what it
// did not have is to lose the next bidding against one that tells the truth.
func trust(was uint64, took, predicted int64) uint64 {
	if max(took, predicted) < judged {
		return was
	}
	ratio := min(max(scale(took, one, max(predicted, 1)), leastTrust), mostTrust)
	if from := factor(was); ratio > from*3/2 && ratio > one {
		return uint64(min(ratio+(ratio-one)/8, mostTrust))
	}
	return toward(factor(was), ratio, learnt, leastTrust, mostTrust)
}

// forgive is a member's factor after another bid of it: who does not win cannot show
// that it has become better, so what was held against it fades.
func forgive(was uint64) uint64 {
	if was <= one {
		return was
	}
	return toward(factor(was), one, forgets, one, mostTrust)
}

// toward moves a factor part of the way.
func toward(from, to, parts, least, most int64) uint64 {
	return uint64(min(max(from+(to-from)/parts, least), most))
}

// weigh is a member's predicted time times what its word was worth: by how much its
// moves took longer than its bids had promised, and by how many of its promises it has
// broken for each that it has kept.
func (r *Record) weigh(ms int64) int64 {
	broken := min(scale(int64(min(r.Broken, 1<<30)), one, int64(min(r.Kept, 1<<30))+1), 15*one)
	return scale(scale(ms, factor(r.Trust), one), one+broken, one)
}

// learn is the machine's habit after a move.
func (h Habit) learn(f Forecast, t Truth) Habit {
	parts := int64(1) // the first says all that is known
	if h.Moves > 0 {
		parts = 2
	}
	h.Moves++
	next := func(was uint64, true, predicted int64) uint64 {
		if predicted <= 0 || true <= 0 {
			return was
		}
		to := min(max(scale(factor(was), true, predicted), leastHabit), mostHabit)
		return toward(factor(was), to, parts, leastHabit, mostHabit)
	}
	const little = 1 << 20 // bytes: of so few the ratio means nothing
	if max(t.Memory, f.Memory) >= little {
		h.Memory = next(h.Memory, t.Memory, f.Memory)
	}
	if max(t.Disk, f.Disk) >= little {
		h.Disk = next(h.Disk, t.Disk, f.Disk)
	}
	if h.Moves > 1 { // what is left for the pause is a matter of chance: one move says little of the next
		parts = learnt
	}
	h.Pause = next(h.Pause, t.Pause, f.Pause)
	return h
}

// learnPath takes what a reported move shows of its path: what it took beside what the
// model makes of the bytes that it really had. So a bid that told too few bytes does not
// count against the path, nor a guest that wrote more than was thought.
func (s *State) learnPath(mv *Move) {
	if mv.Truth.Millis < judged || mv.Forecast.Millis <= 0 {
		return
	}
	p := Path{From: mv.From, To: mv.To}
	if was := s.Path(mv.From, mv.To); was != nil {
		p = *was
	}
	f, t, rate := mv.Forecast, mv.Truth, max(mv.Forecast.Bandwidth, 1)
	enc := memoryRate(rate, mv.Needs.Encodes)
	more := millis(t.Image, rate) + millis(t.Disk, rate) + millis(t.Memory, enc) -
		millis(f.Image, rate) - millis(f.Disk, rate) - millis(f.Memory, enc)
	should := f.Millis + scale(max(more, 0), p.factor(), one) - scale(max(-more, 0), p.factor(), one)
	should = min(max(should, setupMillis/2), maxMillis)
	ratio := scale(factor(p.Time), mv.Truth.Millis, should)
	ratio = min(max(ratio, leastPath), mostPath)
	off := scale(abs(mv.Truth.Millis-should), one, should)
	parts := min(int64(min(p.Moves, learnt))+2, learnt) // what was measured of a new path counts as one move
	p.Time = toward(factor(p.Time), ratio, parts, leastPath, mostPath)
	p.Spread = toward(int64(min(p.Spread, mostTrust)), min(off, mostTrust), parts, 0, mostTrust)
	p.Moves++
	s.paths = s.paths.Set(pathKey(p.From, p.To), &p)
}

func abs(n int64) int64 { return max(n, -n) }
