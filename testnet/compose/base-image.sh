#!/bin/sh
# Make the image debian:bookworm-slim from Debian's packages, for places that
# reach Debian's archive but no image registry.
#
#   base-image.sh [--force]
#
# debootstrap is unpacked privately if the system lacks it; signatures are
# verified. Needs root, and a docker that answers. An image of that name that is
# there already is kept, unless --force says otherwise.
set -eu

image=debian:bookworm-slim
release=bookworm
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "base-image: $*" >&2; }
fail() {
	echo "base-image: error: $1" >&2
	echo "base-image: remedy: $2" >&2
	exit 1
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/dcnode
docker version >/dev/null 2>&1 || fail "docker does not answer" "start its engine, or allow this user to use it"
if [ "${1:-}" != --force ] && docker image inspect $image >/dev/null 2>&1; then
	say "$image is there"
	exit 0
fi
[ "$(id -u)" = 0 ] || fail "debootstrap needs root" "sudo $0"
[ -r $keyring ] || fail "Debian's keys are not on this system ($keyring)" "apt-get install debian-archive-keyring"

if command -v debootstrap >/dev/null; then
	tool=debootstrap
else
	sh "$here/../../scripts/debs.sh" "$cache/debootstrap" debootstrap ||
		fail "debootstrap could not be unpacked (see above)" "apt-get install debootstrap"
	tool=$cache/debootstrap/usr/sbin/debootstrap
	export DEBOOTSTRAP_DIR="$cache/debootstrap/usr/share/debootstrap"
	PATH=$cache/debootstrap/usr/bin:$cache/debootstrap/usr/sbin:$PATH
	export PATH
fi

# The archive that this system's own apt uses, or debootstrap's default.
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
	grep -E '^https?[^ ]*/debian/?$' | head -n 1 || true)

work=$(mktemp -d "${TMPDIR:-/tmp}/dcnode-image.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
say "debootstraps $release from ${archive:-the standard archive} (a minute or so)"
# shellcheck disable=SC2086 # nothing, if there is no archive
"$tool" --variant=minbase --keyring=$keyring $release "$work/root" $archive >"$work/log" 2>&1 ||
	fail "debootstrap: $(tail -n 1 "$work/log")" "see that the archive can be reached and ${TMPDIR:-/tmp} allows devices and programs"
# What makes it slim: no documentation, no package lists, no downloads.
rm -rf "$work/root/usr/share/doc" "$work/root/usr/share/man" "$work/root/usr/share/info" \
	"$work/root/usr/share/locale" "$work/root/var/lib/apt/lists" "$work/root/var/cache/apt" "$work/root/var/log/bootstrap.log"
mkdir -p "$work/root/var/lib/apt/lists/partial" "$work/root/var/cache/apt/archives/partial"
tar --numeric-owner -C "$work/root" -c . |
	docker import --change 'CMD ["bash"]' --change 'LABEL made-by="debootstrap, for dcnode"' - $image >/dev/null ||
	fail "docker did not take the image" "docker info; df -h"
say "made $image ($(docker image inspect --format '{{.Size}}' $image) bytes)"
