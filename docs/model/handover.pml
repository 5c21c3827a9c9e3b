/* The handover of a machine between three members, for Spin. See README.md.
 *
 * The order is a log that each member reads at its own pace, so a member that is slow,
 * cut off or asleep is one that does not read, and whose words are not ordered, for as
 * long as the checker likes. Time is counted in eighths of a lease. A transaction holds
 * only in the ledger state that its author had read when it submitted it (the epoch, the
 * move and its phase are checked, and each entry of the log changes one of them): what
 * waits to be ordered is forgotten when its author reads on.
 *
 * What -D changes it is said in check.sh, with what must come of it.
 */

#ifndef MOVES
#define MOVES 2		/* how often an owner begins a move */
#endif
#ifndef FAULTS
#define FAULTS 2	/* of any kind, at any moment */
#endif

/* Eighths of a lease. */
#ifndef LEASE
#define LEASE 8
#endif
#define HALF 4		/* the fence, after Release */
#define LEFT 2		/* what must be left of it for the machine to run */
#define REACT 2		/* for a fence to take hold: node.hold, node.stopAtOnce */
#ifndef MARGIN
#define MARGIN 1	/* node.drift: waited after the lease, and after Reclaim */
#endif
#ifndef DRIFT
#define DRIFT 1		/* by which a member's clock may be wrong within a lease */
#endif

#define FENCED (HALF + DRIFT + REACT)	/* after Release a fence has taken hold, at the latest */
#define DUE (2 * DRIFT + REACT)		/* what is left of that when it may take hold, at the earliest */
#define OLD (HALF + DRIFT - LEFT + 1)	/* after Release it is surely too late to run first */
#define MAYBE_OLD (HALF - DRIFT - LEFT + 1)
#define OFF 15

/* What the source waits for by its own clock, at the least; what the ledger does. */
#if defined(NO_LEASE)
#define OWN_WAIT 0
#define LEDGER_WAIT 0
#elif defined(CONSENSUS_TIME_ONLY)
#define OWN_WAIT 0
#define LEDGER_WAIT (LEASE - DRIFT)
#elif defined(CONSENSUS_TIME_JUMPS)
#define OWN_WAIT 0
#define LEDGER_WAIT 0
#else		/* consensus time may jump: nothing rests on it */
#define OWN_WAIT (LEASE + MARGIN - DRIFT)
#define LEDGER_WAIT 0
#endif

#define N 3

/* The log. An entry is the ledger after one transaction that had an effect: the phase of
 * the move, the owner, the other side of the move, and whether it came by Reclaim. */
#define IDLE 0
#define COPY 1		/* selected: owner -> peer */
#define REL 2		/* released: the owner is the destination, the peer the source */
#define entry(ph, own, peer, rcl) ((ph) | (own) << 2 | (peer) << 4 | (rcl) << 6)
#define PH(e) ((e) & 3)
#define OWN(e) (((e) >> 2) & 3)
#define PEER(e) (((e) >> 4) & 3)
#define RCL(e) ((e) >> 6)
#define LOG (3 * MOVES + 2)
byte lg[LOG];
byte top;
byte seen[N];		/* the entry that a member has read last */
#define NOW lg[top - 1]
#define V lg[seen[i]]	/* what member i knows */
byte moves = MOVES;
byte lease;		/* what is left of it by the ledger */

/* What a member has submitted and nobody has ordered. */
#define INTENT 1
#define RELEASE 2
#define CONFIRM 4
#define DECLINE 8
#define RECLAIM 16
#define ABORT 32
byte pend[N];

/* A machine's process on a host: it does not end with dcnode. */
#define NONE 0
#define PAUSED 1	/* it obeys who says cont */
#define FROZEN 2	/* stopped by the fence: a cont has no effect */
#define RUN 3
byte q[N];

/* dcnode's record on disk. */
#define HERE 1
#define RELEASED 2
#define ARRIVING 3
#define LOADED 4
byte step[N];

/* dcnode: what its session does. */
#define REST 0
#define SRC 1		/* source: the copying goes on */
#define STOPPED 2	/* source: the machine is paused */
#define SAY 3		/* source: that is on disk */
#define DECIDE 4	/* source: only the order can say */
#define WAIT 5		/* source: it said Reclaim; the drift margin */
#define ARR 6		/* destination: it arrives */
#define HAVE 7		/* destination: it is loaded */
#define GO 8		/* destination: released in time, recorded */
#define CONT 9		/* destination: the fence is armed */
#define TRY 10		/* destination: it runs, unconfirmed */
#define OBEY 11		/* destination: it stands still until the order speaks */
#define DOWN 12
byte pc[N];
bit stalled[N];		/* SIGSTOP, or a host too busy */
bit gone[N];		/* it will not come back */
#define up(i) (pc[i] != DOWN && !stalled[i])

/* Time. */
byte since[N];		/* Release to member i was submitted so long ago; OLD: or longer */
byte fence[N];		/* left until the fence of i has taken hold; OFF: not set */
byte timer[N];		/* what the source waits for */
bit armed[N];		/* the guard outside dcnode has the fence too */
bit dozes[N];		/* the guard is stalled */

/* The stream to a destination. */
#define HELLO 1
#define READY 2
#define SENT 3		/* all of it */
byte strm[N];

byte faults = FAULTS;

#define runs(i) (q[i] == RUN)
#define running (runs(0) + runs(1) + runs(2))

/* Machine i runs, whatever it was before: on from where it stands, or from its disks. */
inline start() {
	q[i] = RUN;
	assert(running == 1)	/* one machine, one runner */
}

/* put orders e. Who has no part in it, and nothing to do, reads it at once: when it does
 * makes no difference. What all have read goes. (No loops: Spin takes each turn as a step.) */
#define apart(j, e) (OWN(e) != j && PEER(e) != j)
#define idle(j) ((pc[j] == REST || pc[j] == DOWN) && !step[j] && q[j] == NONE)
#define follow(j) seen[j] = (seen[j] == top - 2 && apart(j, lg[top - 2]) && apart(j, lg[top - 1]) && idle(j) -> top - 1 : seen[j])
inline put(e) {
	lg[top] = e; top++;
	follow(0); follow(1); follow(2);
	forget(); forget(); forget()
}

#define allRead (seen[0] && seen[1] && seen[2])
inline forget() {
	if
	:: allRead ->
		lg[0] = lg[1]; lg[1] = lg[2]; lg[2] = lg[3]; lg[3] = lg[4];
#if MOVES > 1
		lg[4] = lg[5]; lg[5] = lg[6]; lg[6] = lg[7];
#endif
#if MOVES > 2
		lg[7] = lg[8]; lg[8] = lg[9]; lg[9] = lg[10];
#endif
		lg[LOG - 1] = 0; top--;
		seen[0]--; seen[1]--; seen[2]--
	:: else
	fi
}

/* Words that hold: their author has read all that is ordered. */
#define says(i, w) (seen[i] == top - 1 && (pend[i] & (w)))

/* What the ledger makes of member m's words. Refused ones have no effect. */
proctype order(byte m) {
end:	do
	:: d_step { says(m, INTENT) && PH(NOW) == IDLE && OWN(NOW) == m && moves -> moves--; put(entry(COPY, m, (m + 1) % N, 0)) }
	:: d_step { says(m, INTENT) && PH(NOW) == IDLE && OWN(NOW) == m && moves && moves < MOVES -> moves--; put(entry(COPY, m, (m + 2) % N, 0)) }
	:: d_step { says(m, RELEASE) && PH(NOW) == COPY && OWN(NOW) == m -> lease = LEDGER_WAIT; put(entry(REL, PEER(NOW), m, 0)) }
	:: d_step { says(m, CONFIRM) && PH(NOW) == REL && OWN(NOW) == m -> lease = 0; put(entry(IDLE, m, m, 0)) }
	:: d_step { says(m, DECLINE) && PH(NOW) == REL && OWN(NOW) == m -> lease = 0; put(entry(IDLE, PEER(NOW), PEER(NOW), 0)) }
	:: d_step { says(m, RECLAIM) && PH(NOW) == REL && PEER(NOW) == m && !lease -> put(entry(IDLE, m, m, 1)) }
	:: d_step { (says(m, ABORT) && (OWN(NOW) == m || PEER(NOW) == m) || gone[m] && OWN(NOW) == m) && PH(NOW) == COPY -> put(entry(IDLE, OWN(NOW), OWN(NOW), 0)) } /* or nobody says that the copying goes on */
	od
}

#define mine (OWN(V) == i)
#define copyFrom (PH(V) == COPY && OWN(V) == i)
#define copyTo (PH(V) == COPY && PEER(V) == i)
#define relFrom (PH(V) == REL && PEER(V) == i)
#define relTo (PH(V) == REL && OWN(V) == i)
#define owner (OWN(V) == i && PH(V) != REL)	/* nobody else may run it */

/* The machine is not ours: nothing of it stays here. */
inline drop() {
	q[i] = NONE; step[i] = 0; since[i] = OLD; fence[i] = OFF; armed[i] = 0; pc[i] = REST
}

inline settle() {		/* the order says that it is ours */
	since[i] = OLD; fence[i] = OFF; armed[i] = 0; step[i] = HERE; pc[i] = REST; start()
}

/* What a restart makes of the record and the ledger, as far as it is read: node/reconcile.go. */
inline restart() {
	if
	:: q[i] == RUN && !(step[i] == HERE && owner) -> q[i] = PAUSED	/* first of all */
	:: else
	fi;
	if
	:: step[i] == 0 ->
		pc[i] = REST;
		if
		:: copyFrom || copyTo -> pend[i] = pend[i] | ABORT
		:: else
		fi
	:: step[i] && relFrom -> timer[i] = OWN_WAIT; pc[i] = DECIDE
	:: step[i] && relTo ->
		pc[i] = OBEY;
		if
		:: q[i] == NONE && step[i] != HERE -> pend[i] = pend[i] | DECLINE
		:: else -> pend[i] = pend[i] | CONFIRM
		fi
	:: step[i] && !mine && !relFrom ->
		if
		:: copyTo -> pend[i] = pend[i] | ABORT
		:: else
		fi;
		drop()
	:: step[i] == RELEASED && copyFrom -> timer[i] = OWN_WAIT; pend[i] = pend[i] | ABORT; pc[i] = DECIDE
	:: step[i] == RELEASED && owner && !copyFrom && RCL(V) -> timer[i] = MARGIN; pc[i] = WAIT
	:: step[i] && owner && !(step[i] == RELEASED && (copyFrom || RCL(V))) ->
		if
		:: copyFrom -> pend[i] = pend[i] | ABORT
		:: else
		fi;
		settle()
	fi
}

proctype dcnode(byte i) {
end:	do
	:: d_step { up(i) && seen[i] < top - 1 -> seen[i]++; pend[i] = 0; forget() }
	:: d_step { pc[i] == DOWN && !gone[i] -> restart() }
#ifndef NO_SUPERVISOR
	:: d_step { up(i) && pc[i] == REST && owner && q[i] != RUN -> settle() }
#endif

	/* The source. */
	:: d_step { up(i) && pc[i] == REST && owner && PH(V) == IDLE && runs(i) && moves && !pend[i] -> pend[i] = INTENT }
	:: d_step { up(i) && pc[i] == REST && copyFrom && !pend[i] -> pend[i] = ABORT }	/* nobody there; or cancelled */
	:: d_step { up(i) && pc[i] == REST && copyFrom && !pend[i] && runs(i) && pc[PEER(V)] == REST && strm[PEER(V)] == 0 ->
		strm[PEER(V)] = HELLO; step[i] = HERE; pc[i] = SRC }
	:: d_step { up(i) && pc[i] == SRC && copyFrom && strm[PEER(V)] == READY && runs(i) -> q[i] = PAUSED; pc[i] = STOPPED }
	:: d_step { up(i) && (pc[i] == SRC || pc[i] == STOPPED) && copyFrom -> strm[PEER(V)] = 0; pend[i] = ABORT; settle() }
	:: d_step { up(i) && (pc[i] == SRC || pc[i] == STOPPED) && !copyFrom -> settle() }
#ifdef RELEASE_BEFORE_RECORD
	:: d_step { up(i) && pc[i] == STOPPED -> pc[i] = SAY }
#else
	:: d_step { up(i) && pc[i] == STOPPED -> step[i] = RELEASED; pc[i] = SAY }
#endif
	:: d_step { up(i) && pc[i] == SAY ->
		if
		:: copyFrom -> pend[i] = RELEASE; since[PEER(V)] = 0
		:: else
		fi;
		timer[i] = OWN_WAIT; pc[i] = DECIDE }
	:: d_step { up(i) && pc[i] == DECIDE && q[i] == PAUSED && copyFrom && strm[PEER(V)] == READY -> strm[PEER(V)] = SENT }
	:: d_step { up(i) && pc[i] == DECIDE && q[i] == PAUSED && relFrom && strm[OWN(V)] == READY -> strm[OWN(V)] = SENT }
#ifndef NO_RECLAIM
	:: d_step { up(i) && pc[i] == DECIDE && relFrom && !timer[i] && !(pend[i] & RECLAIM) -> pend[i] = pend[i] | RECLAIM }
#endif
	:: d_step { up(i) && pc[i] == DECIDE && owner && PH(V) == IDLE && RCL(V) -> timer[i] = MARGIN; pc[i] = WAIT }
	:: d_step { up(i) && pc[i] == DECIDE && owner && PH(V) == IDLE && !RCL(V) -> timer[i] = 0; settle() }
	:: d_step { up(i) && pc[i] == WAIT && !timer[i] -> settle() }
	:: d_step { up(i) && pc[i] == DECIDE && !mine && !relFrom -> timer[i] = 0; drop() }
#ifdef SOURCE_RESUMES
	:: d_step { up(i) && pc[i] == DECIDE && copyFrom && strm[PEER(V)] == 0 -> settle() }
#endif

	/* The destination. */
	:: d_step { up(i) && pc[i] == REST && copyTo && strm[i] == HELLO && seen[OWN(V)] == seen[i] && step[i] == 0 && q[i] == NONE ->
		step[i] = ARRIVING; q[i] = PAUSED; strm[i] = READY; pc[i] = ARR }
	:: d_step { up(i) && pc[i] == ARR && strm[i] == SENT && q[i] == PAUSED -> strm[i] = 0; step[i] = LOADED; pc[i] = HAVE }
	:: d_step { up(i) && pc[i] == ARR && (strm[i] == SENT || strm[i] == 0 || !(copyTo || relTo)) ->	/* it does not load, or never comes */
		strm[i] = 0;
		if
		:: copyTo -> pend[i] = ABORT
		:: else
		fi;
		drop() }
	:: d_step { up(i) && pc[i] == HAVE && copyTo -> pend[i] = ABORT; drop() }	/* no Release within its time */
	:: d_step { up(i) && pc[i] == HAVE && !(copyTo || relTo) -> drop() }
	:: d_step { up(i) && pc[i] == REST && relTo && !pend[i] -> pend[i] = DECLINE }	/* nothing of it is here */
#ifdef LONG_COPY
	:: d_step { up(i) && pc[i] == HAVE && relTo -> step[i] = HERE; fence[i] = FENCED; pc[i] = GO }
#else
	:: d_step { up(i) && pc[i] == HAVE && relTo && since[i] < OLD -> step[i] = HERE; fence[i] = FENCED - since[i]; pc[i] = GO }
	:: d_step { up(i) && pc[i] == HAVE && relTo && since[i] >= MAYBE_OLD -> pend[i] = CONFIRM; pc[i] = OBEY }
#endif
#ifdef NO_RELEASE
	:: d_step { up(i) && pc[i] == HAVE && copyTo -> step[i] = HERE; fence[i] = FENCED; pc[i] = GO }
#endif
#if defined(NO_GUARD) || defined(NO_FENCE) || defined(ARM_AFTER)
	:: d_step { up(i) && pc[i] == GO -> pc[i] = CONT }
#else
	:: d_step { up(i) && pc[i] == GO && !dozes[i] && fence[i] -> armed[i] = 1; pc[i] = CONT }
#endif
#ifdef ARM_AFTER
	:: d_step { up(i) && pc[i] == TRY && !armed[i] && !dozes[i] && fence[i] && fence[i] != OFF -> armed[i] = 1 }
#endif
	:: d_step { up(i) && pc[i] == CONT ->
		if
		:: q[i] == PAUSED -> start(); pend[i] = CONFIRM; pc[i] = TRY
		:: else -> pend[i] = DECLINE; drop()
		fi;
#ifdef DISARM_EARLY
		armed[i] = 0
#endif
		}
	:: d_step { up(i) && (pc[i] == GO || pc[i] == CONT) && fence[i] <= DUE -> pend[i] = DECLINE; drop() }
#if !defined(NO_FENCE) && !defined(GUARD_ALONE)
	:: d_step { up(i) && pc[i] == TRY && (fence[i] <= DUE || q[i] == FROZEN) ->
		if
		:: q[i] == RUN -> q[i] = PAUSED
		:: else
		fi;
		fence[i] = OFF; armed[i] = 0; pc[i] = OBEY }
#endif
	:: d_step { up(i) && (pc[i] == TRY || pc[i] == OBEY) && owner -> settle() }
	:: d_step { up(i) && (pc[i] == TRY || pc[i] == OBEY) && !mine -> drop() }
	od
}

/* What a host runs besides dcnode: the machine and its guard (vmm/fence). If an armed guard
 * dies the kernel stops the machine. */
proctype host(byte i) {
end:	do
#ifdef GUARD_ASKS	/* by QMP stop, which a later cont undoes */
	:: d_step { armed[i] && !dozes[i] && fence[i] <= DUE ->
		q[i] = (q[i] == RUN -> PAUSED : q[i]); armed[i] = 0 }
#else
	:: d_step { armed[i] && !dozes[i] && fence[i] <= DUE && q[i] != NONE -> q[i] = FROZEN; armed[i] = 0; fence[i] = OFF }	/* SIGSTOP */
	:: d_step { armed[i] && !dozes[i] && fence[i] <= DUE -> q[i] = NONE; armed[i] = 0; fence[i] = OFF }		/* SIGKILL */
#endif
	:: d_step { dozes[i] -> dozes[i] = 0 }
	:: d_step { stalled[i] -> stalled[i] = 0 }
	od
}

#if defined(NO_FENCE) || defined(GUARD_ALONE)
#define fencing 0
#else
#define fencing 1
#endif
#define urgent(i) (fence[i] == 0 && (armed[i] && !dozes[i] || up(i) && (pc[i] == GO || pc[i] == CONT || fencing && pc[i] == TRY)))
#define counts(i) (since[i] < OLD || fence[i] > 0 && fence[i] != OFF || timer[i])

#define tick(j) \
	since[j] = (since[j] < OLD -> since[j] + 1 : OLD); \
	fence[j] = (fence[j] && fence[j] != OFF -> fence[j] - 1 : fence[j]); \
	timer[j] = (timer[j] -> timer[j] - 1 : 0)

proctype clock() {
end:	do
	:: d_step { !urgent(0) && !urgent(1) && !urgent(2) && (counts(0) || counts(1) || counts(2) || lease) ->
		tick(0); tick(1); tick(2);
		lease = (lease -> lease - 1 : 0) }
	od
}

#ifdef BOTH_FENCES_FAIL
#define BOTH 1
#else
#define BOTH 0	/* of dcnode and the guard only one fails within a lease */
#endif
#define fault (faults > 0)
#define partOf(i) (pc[i] != REST || step[i] || OWN(V) == i || PEER(V) == i)

/* dcnode dies. What it has submitted is on its way, or lost with it. */
inline die(lost) {
	faults--;
	if
	:: lost -> pend[i] = 0
	:: else
	fi;
	if
	:: pc[i] == SRC || pc[i] == STOPPED || pc[i] == SAY || pc[i] == DECIDE ->
		if
		:: copyFrom -> strm[PEER(V)] = 0
		:: relFrom -> strm[OWN(V)] = 0
		:: else
		fi
	:: else
	fi;
	strm[i] = 0;
	timer[i] = 0; stalled[i] = 0;
	if
	:: !armed[i] -> fence[i] = OFF
	:: else
	fi;
	pc[i] = DOWN
}

proctype adversary(byte i) {
end:	do
#ifndef NO_CRASH
	:: d_step { fault && pc[i] != DOWN && partOf(i) && (BOTH || !dozes[i]) -> die(0) }
	:: d_step { fault && pc[i] != DOWN && partOf(i) && (BOTH || !dozes[i]) && pend[i] -> die(1) }
	:: d_step { fault && pc[i] == DOWN && !gone[0] && !gone[1] && !gone[2] -> faults--; gone[i] = 1 }
#endif
#ifndef NO_STALL
	:: d_step { fault && pc[i] >= SRC && pc[i] != DOWN && !stalled[i] && (BOTH || !dozes[i]) -> faults--; stalled[i] = 1 }
	:: d_step { fault && armed[i] && !dozes[i] && (BOTH || up(i)) -> faults--; dozes[i] = 1 }
#endif
	:: d_step { fault && q[i] != NONE -> faults--; q[i] = NONE; armed[i] = 0 }	/* the machine's process */
	:: d_step { fault && armed[i] -> faults--; q[i] = (q[i] == NONE -> NONE : FROZEN); armed[i] = 0; fence[i] = OFF }	/* the guard */
	:: d_step { fault && strm[i] -> faults--; strm[i] = 0 }	/* the stream to i */
	od
}

/* No process can do anything, and no fault is to come: one runs, or its owner is gone. */
proctype judge() {
	faults = 0;
	timeout -> assert(running == 1 || running == 0 && gone[OWN(NOW)])
}

init {
	atomic {
		lg[0] = entry(IDLE, 0, 0, 0); top = 1;
		q[0] = RUN; step[0] = HERE;
		since[0] = OLD; since[1] = OLD; since[2] = OLD;
		fence[0] = OFF; fence[1] = OFF; fence[2] = OFF;
		run clock(); run judge();
		run order(0); run order(1); run order(2);
		run dcnode(0); run dcnode(1); run dcnode(2);
		run host(0); run host(1); run host(2);
		run adversary(0); run adversary(1); run adversary(2)
	}
}
