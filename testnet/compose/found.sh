#!/bin/sh
# Found an overlay: runs in a container that has all sites' data volumes.
#
#   found.sh SITE=REGION...
#
# Each site's volume, /sites/SITE, gets an identity, the genesis that names all of
# them as members, and the addresses of the others. What is there stays, so that
# `docker-compose up` finds the overlay it made before.
set -eu

members=''
for pair; do
	site=${pair%%=*} data=/sites/${pair%%=*}
	[ -e "$data/member.json" ] || dcnode init --data "$data" --site "$site" --region "${pair#*=}"
	members="$members $data/member.json"
done

genesis=/sites/${1%%=*}/genesis.json
if [ ! -e "$genesis" ]; then
	# shellcheck disable=SC2086 # a list of paths without spaces
	dcnode genesis $members >"$genesis.part"
	mv "$genesis.part" "$genesis"
fi
for pair; do
	data=/sites/${pair%%=*}
	[ -e "$data/genesis.json" ] || cp "$genesis" "$data/genesis.json"
	: >"$data/bootstrap.part"
	for other; do
		peer=$(grep -o '12D3Koo[0-9A-Za-z]*' "/sites/${other%%=*}/member.json" | head -n 1)
		[ -n "$peer" ] || { echo "found: no peer ID in the member.json of ${other%%=*}" >&2; exit 1; }
		[ "$other" = "$pair" ] || echo "/dns4/${other%%=*}/tcp/4001/p2p/$peer" >>"$data/bootstrap.part"
	done
	mv "$data/bootstrap.part" "$data/bootstrap"
done
echo "found: an overlay of $# sites"
