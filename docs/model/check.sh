#!/bin/sh
# Checks the model of the handover with Spin: what must hold holds, and each rule that is
# taken away makes it fail. With -full also what takes minutes. With -trace "FLAGS" it
# prints the shortest way in which the model with these -D flags fails.
set -eu
cd "$(dirname "$0")"
model=$PWD/handover.pml
memory=4000 # MB for each search
full= trace=
case "${1-}" in
-full) full=1 ;;
-trace) trace="${2?the flags}" ;;
'') ;;
*) echo "usage: $0 [-full | -trace \"-DNO_FENCE ...\"]" >&2; exit 2 ;;
esac

tools() { command -v spin && command -v gcc; } >/dev/null
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends spin gcc libc6-dev; } >/dev/null
if ! tools && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	install 2>/dev/null || { apt-get update -qq && install; } || :
fi
if ! tools; then
	echo 'the model is not checked: it needs spin and gcc: apt-get install spin gcc libc6-dev' >&2
	exit 3
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# search FLAGS CFLAGS PANFLAGS: leaves what was found in ./out
search() {
	spin -a $1 "$model" >spin.out 2>&1 || { cat spin.out >&2; exit 1; }
	gcc -w $2 -DCOLLAPSE -DVECTORSZ=512 -DMEMLIM=$memory -o pan pan.c
	./pan -m200000 -n $3 >out 2>&1 || :
	grep -q 'errors: ' out || { cat out >&2; exit 1; }
}

states() { sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' out; }
errors() { sed -n 's/.*errors: \([0-9]*\)$/\1/p' out; }

# holds NAME FLAGS: all states are searched and no assertion fails.
holds() {
	name=$1 flags=$2
	dir=$(mktemp -d "$work/XXXXXX") && cd "$dir"
	search "$flags" "-O1 -DSAFETY -DNOREDUCE" ""
	if [ "$(errors)" != 0 ] || grep -qE 'not completed|max search depth too small|out of memory' out; then
		cat out >&2
		echo "FAILED: $name ($flags) does not hold: $0 -trace \"$flags\" shows how" >&2
		exit 1
	fi
	printf 'holds  %-52s %10s states  %s\n' "$name" "$(states)" "$flags"
}

# ends NAME FLAGS: no execution is endless, so each comes to where judge looks at it.
ends() {
	name=$1 flags=$2
	dir=$(mktemp -d "$work/XXXXXX") && cd "$dir"
	search "$flags" "-O1 -DNP -DNOREDUCE" "-l"
	if [ "$(errors)" != 0 ] || grep -qE 'not completed|max search depth too small|out of memory' out; then
		cat out >&2
		echo "FAILED: $name ($flags): an execution does not end" >&2
		exit 1
	fi
	printf 'ends   %-52s %10s states  %s\n' "$name" "$(states)" "$flags"
}

# fails NAME FLAGS LINE: the assertion of that kind is violated: two (runners) or lost.
fails() {
	name=$1 flags=$2 how=$3
	dir=$(mktemp -d "$work/XXXXXX") && cd "$dir"
	search "$flags" "-O0 -DSAFETY -DNOREDUCE" ""
	case $how in
	two) want='assertion violated .*==1) (at' ;;
	lost) want='assertion violated .*gone' ;;
	esac
	if ! grep -q "$want" out; then
		cat out >&2
		echo "FAILED: $name ($flags): the model does not notice" >&2
		exit 1
	fi
	printf 'fails  %-52s %10s states  %s (%s)\n' "$name" "$(states)" "$flags" "$how"
}

if [ -n "$trace" ]; then
	cd "$work"
	search "$trace" "-O1 -DSAFETY -DNOREDUCE -DBFS" ""
	[ "$(errors)" != 0 ] || { echo 'it holds'; exit 0; }
	spin -k handover.pml.trail -t -p -g $trace "$model" | awk -f "${model%/*}/trace.awk"
	exit 0
fi

echo 'What must hold: never two runners; when nothing more happens, one, unless its owner is gone for good.'
holds 'one move, three faults' '-DMOVES=1 -DFAULTS=3'
holds 'two moves, no fault' '-DMOVES=2 -DFAULTS=0'
ends  'one move, two faults' '-DMOVES=1 -DFAULTS=2'
one='-DMOVES=1 -DFAULTS=2'
holds 'no guard, but dcnode neither dies nor stalls' "$one -DNO_GUARD -DNO_CRASH -DNO_STALL"
holds 'consensus time alone, but it does not jump' "$one -DCONSENSUS_TIME_ONLY"

echo 'What must fail: a rule taken away.'
fails 'no lease' "$one -DNO_LEASE" two
fails 'no self-fence' "$one -DNO_FENCE" two
fails 'no self-fence, not even a fault' "-DMOVES=1 -DFAULTS=0 -DNO_FENCE" two
fails 'destination runs without Release in the order' "$one -DNO_RELEASE" two
fails 'source resumes without a word of the order' "$one -DSOURCE_RESUMES" two
fails 'Release before the record' "$one -DRELEASE_BEFORE_RECORD" two
fails 'no drift margin' "$one -DMARGIN=0" two
fails 'clocks worse than the margin' "$one -DDRIFT=2" two
fails 'consensus time alone, and it jumps' "$one -DCONSENSUS_TIME_JUMPS" two
fails 'no guard: dcnode dies' "-DMOVES=1 -DFAULTS=1 -DNO_GUARD -DNO_STALL" two
fails 'no guard: dcnode stalls' "-DMOVES=1 -DFAULTS=1 -DNO_GUARD -DNO_CRASH" two
fails 'guard armed after the machine runs' "$one -DARM_AFTER" two
fails 'guard disarmed before Confirm is ordered' "$one -DDISARM_EARLY" two
fails 'guard pauses by QMP' "$one -DGUARD_ASKS" two
fails 'guard alone' "$one -DGUARD_ALONE" two
fails 'fence counted from ready, after a long copy' "-DMOVES=1 -DFAULTS=0 -DLONG_COPY" two
fails 'nobody boots a machine whose process ended' "-DMOVES=1 -DFAULTS=1 -DNO_SUPERVISOR" lost
fails 'the source never reclaims' "-DMOVES=1 -DFAULTS=2 -DNO_RECLAIM" lost

echo 'What is not promised: it fails, as is known.'
fails 'dcnode and its guard both fail within a lease' "$one -DBOTH_FENCES_FAIL" two

if [ -n "$full" ]; then
	echo 'More.'
	holds 'one move, five faults' '-DMOVES=1 -DFAULTS=5'
	holds 'two moves, one fault' '-DMOVES=2 -DFAULTS=1'
	ends  'one move, four faults' '-DMOVES=1 -DFAULTS=4'
	ends  'two moves, no fault' '-DMOVES=2 -DFAULTS=0'
fi
