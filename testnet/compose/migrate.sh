#!/bin/sh
# Bring up three sites as containers, move a running machine from one to another,
# and look whether it went on: a test of the whole, with real sockets between
# containers that share nothing.
#
#   migrate.sh [--keep]       keep the containers afterwards, to look around
#
# Exit code 0 if the machine arrived and no tick of it is missing or doubled.
set -eu

say() { echo "migrate: $*" >&2; }
fail() {
	echo "migrate: error: $1" >&2
	echo "migrate: remedy: $2" >&2
	exit 1
}

cd "$(dirname -- "$0")/../.."
machine=web1
keep=''
if [ "${1:-}" = --keep ]; then keep=yes; fi
export COMPOSE_PROJECT_NAME="dcnode-lab-$$"

docker version >/dev/null 2>&1 || fail "docker does not answer" "start its engine, or allow this user to use it"
if docker compose version >/dev/null 2>&1; then
	compose() { docker compose "$@"; }
elif command -v docker-compose >/dev/null; then
	compose() { docker-compose "$@"; }
else
	fail "there is no docker compose" "install docker-compose 1.29 or newer"
fi
[ -x bin/dcnode ] || fail "there is no bin/dcnode" "make build"
docker image inspect debian:bookworm-slim >/dev/null 2>&1 ||
	timeout 120 docker pull --quiet debian:bookworm-slim >/dev/null 2>&1 ||
	sh testnet/compose/base-image.sh

# at SITE COMMAND... runs a command in the site's container.
at() {
	where=$1
	shift
	compose exec -T "$where" "$@" </dev/null
}

# console SITE prints what the machine said there.
console() { at "$1" sh -c "find /data -name console.log -path '*$machine*' -exec cat {} +" 2>/dev/null || true; }

# ticks SITE prints the numbers of the machine's ticks there.
ticks() { console "$1" | tr -d '\r' | sed -n 's/^tick \([0-9][0-9]*\).*/\1/p'; }

# newest SITE prints the newest tick there, or 0.
newest() {
	found=$(ticks "$1" | tail -n 1)
	echo "${found:-0}"
}

# until_true SECONDS WHAT COMMAND... waits until the command succeeds.
until_true() {
	left=$1 what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		[ $left -gt 0 ] || fail "$what: time is up" "see the logs above; --keep keeps the containers"
		sleep 1
	done
}

past() { [ "$(newest "$1")" -gt "$2" ]; }
owned_by() { at "$2" dcnode vm ls | grep -E "^$machine +" | grep -qw "$1"; }
sees_all() { [ "$(at "$1" dcnode status --json | grep -o '12D3Koo[0-9A-Za-z]*' | sort -u | wc -l)" -ge 3 ]; }

end() {
	code=$?
	trap - EXIT
	if [ $code -ne 0 ]; then compose logs --no-color --tail 40 >&2 2>/dev/null || true; fi
	if [ -n "$keep" ]; then
		say "kept; end it with: docker-compose -p $COMPOSE_PROJECT_NAME down -v"
	else
		compose down --volumes --remove-orphans --timeout 10 >/dev/null 2>&1 || say "some containers may be left: docker ps"
	fi
	exit $code
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say "brings up dc1, dc2 and dc3"
if ! output=$(compose up --detach --build 2>&1); then
	echo "$output" | tail -n 20 >&2
	fail "the containers do not start" "see above"
fi
for site in dc1 dc2 dc3; do
	until_true 60 "$site answers" at $site dcnode status
	until_true 60 "$site sees the others" sees_all $site
done

say "makes an image of 16 MiB and runs $machine from it at dc1"
at dc1 sh -c 'head -c 16777216 /dev/urandom >/tmp/base.img'
at dc1 dcnode image add base /tmp/base.img >&2
at dc1 dcnode vm run $machine --image base --driver memvm --memory 64M >&2
until_true 30 "$machine ticks at dc1" past dc1 50
until_true 30 "dc3 knows $machine" owned_by dc1 dc3

say "moves $machine to dc2"
before=$(newest dc1)
at dc1 dcnode vm migrate $machine --to dc2 >&2
until_true 30 "$machine goes on at dc2" past dc2 "$((before + 50))"

failed=''
for site in dc1 dc2 dc3; do
	at $site dcnode vm ls >&2
	until_true 15 "$site says that dc2 has $machine" owned_by dc2 $site
done
last=$(newest dc1)
first=$(ticks dc2 | head -n 1)
if [ "$first" != "$((last + 1))" ]; then
	say "dc1 ended with tick $last and dc2 began with ${first:-none}"
	failed=yes
fi
for site in dc1 dc2; do
	if ! ticks $site | awk 'NR > 1 && $1 != last + 1 { print "tick " $1 " follows tick " last; bad = 1 } { last = $1 } END { exit bad }' >&2; then
		failed=yes
	fi
done
if console dc2 | grep -iE '^check fail|panic' >&2; then failed=yes; fi
[ -z "$failed" ] || fail "$machine did not go on as it was" "this is a bug: report it with the output above"
say "$machine moved: dc1 ended with tick $last, dc2 went on with tick $first; now at tick $(newest dc2)"
