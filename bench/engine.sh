#!/bin/sh
# Events per CPU-second of ours, babble and lachesis-base; flags go to the program.
#
# babble checks signatures when it inserts an event; the others leave that to whoever
# feeds them. So that like is compared with like, the check is compiled away by an
# overlay; the checkout stays as it is. The tag leaves out its database.
set -eu
cd "$(dirname "$0")"
sh peers.sh
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT INT TERM
file=$PWD/peers/babble/src/hashgraph/event.go
sed 's/^func (e \*Event) Verify() (bool, error) {$/& if true { return true, nil }/' "$file" >"$tmp/event.go"
cmp -s "$file" "$tmp/event.go" && { echo "engine.sh: babble's Event.Verify is not where it was: adapt the overlay" >&2; exit 1; }
printf '{"Replace":{"%s":"%s"}}' "$file" "$tmp/event.go" >"$tmp/overlay.json"
CGO_ENABLED=0 go build -tags mobile -overlay "$tmp/overlay.json" -o "$tmp/engine" ./engine
"$tmp/engine" "$@"
