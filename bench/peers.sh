#!/bin/sh
# Checks out the engines that ours is compared with, each at one commit, into
# bench/peers. PEERS names a folder with clones of them, to do without the network.
set -eu
cd "$(dirname "$0")"
checkout() { # folder, where it comes from, commit
	if [ ! -d "peers/$1" ]; then
		from=$2
		[ -z "${PEERS:-}" ] || from=$PEERS/$1
		git clone --quiet --no-checkout "$from" "peers/$1"
	fi
	git -C "peers/$1" -c advice.detachedHead=false checkout --quiet --force "$3"
}
checkout babble https://github.com/mosaicnetworks/babble ecab6509df8220b75ddc1466d8b5c7a5641727eb
checkout lachesis-base https://github.com/Fantom-foundation/lachesis-base 81884efc3c41e85751d2fdc40fc80de0e3b42a46
