#!/bin/sh
# Say what the demo finds on this system, and install what it lacks.
#
#   deps.sh            install missing packages with apt-get, as root or by sudo
#   deps.sh --check    only say what is missing; exit code 1 if something is
#
# Little is needed: QEMU, the guest's kernel and mkfs.ext4 are unpacked privately
# (qemu.sh, debs.sh). What is here cannot be had that way.
set -eu

say() { echo "deps: $*" >&2; }
fail() {
	echo "deps: error: $1" >&2
	echo "deps: remedy: $2" >&2
	exit 1
}

# The program or file looked for, the package that has it, and what it is for.
needs() {
	cat <<-END
		dpkg-deb dpkg unpacks packages
		apt-get apt downloads packages
		gpgv gpgv verifies packages
		/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring verifies packages
		flock util-linux keeps two set-ups apart
		nsenter util-linux runs programs at a site
	END
}

have() {
	case $1 in
	/*) [ -r "$1" ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

missing=$(needs | while read -r thing package purpose; do
	if ! have "$thing"; then
		say "missing: $thing ($package), which $purpose"
		echo "$package"
	fi
done | sort -u | tr '\n' ' ')

if [ -e /dev/net/tun ] && [ "$(id -u)" = 0 ]; then
	say "the emulated network can run here"
else
	say "the emulated network needs root and /dev/net/tun (modprobe tun)"
fi
if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then say "/dev/kvm opens"; else say "no /dev/kvm: machines are emulated, slowly"; fi

if [ -z "$missing" ]; then
	say "nothing is missing"
	exit 0
fi
if [ "${1:-}" = --check ]; then exit 1; fi
have apt-get || fail "there is no apt-get" "install yourself: $missing"
asroot=''
if [ "$(id -u)" != 0 ]; then
	have sudo || fail "not root, and there is no sudo" "as root: apt-get install $missing"
	asroot=sudo
fi
say "installs $missing"
# shellcheck disable=SC2086 # a list of words
$asroot apt-get --quiet=2 --no-install-recommends --yes install $missing >&2 ||
	fail "apt-get could not install them" "apt-get update, then again"
