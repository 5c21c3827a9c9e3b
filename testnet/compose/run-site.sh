#!/bin/sh
# Run a site's daemon, in its container: the site is named like the host.
set -eu
bootstrap=$(sed 's/^/--bootstrap /' /data/bootstrap)
# shellcheck disable=SC2086 # a list of flags
exec dcnode run --data /data --genesis /data/genesis.json --listen /ip4/0.0.0.0/tcp/4001 \
	--advertise "/dns4/$(hostname)/tcp/4001" $bootstrap
