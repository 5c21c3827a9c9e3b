#!/bin/sh
# Make a QEMU that can migrate ready in the cache, and say where.
#
#   qemu.sh [--private | --complete]
#
# It prints the folder that holds qemu-system-x86_64, qemu-img, ...
#
# QEMU before 9.0 loses pages of busy guests that it emulates, so those are not
# used. A newer one that the system has is linked to; otherwise Debian's
# backported packages are unpacked (not installed) into
# ${XDG_CACHE_HOME:-~/.cache}/dcnode/qemu-VERSION, and dcnode/qemu points there.
# Neither the system's QEMU nor its apt is touched; no root needed. The second
# run is instant. --private ignores the system's QEMU, --complete also all of the
# system's libraries.
set -eu

say() { echo "qemu: $*" >&2; }
fail() {
	echo "qemu: error: $1" >&2
	echo "qemu: remedy: $2" >&2
	exit 1
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
[ -n "${XDG_CACHE_HOME:-${HOME:-}}" ] || fail "no home folder" "set XDG_CACHE_HOME"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dcnode
link=$cache/qemu
tools="qemu-system-x86_64 qemu-img qemu-nbd qemu-io qemu-storage-daemon"
case ${1:-} in
'') choice=any ;;
--private | --complete) choice=${1#--} ;;
*) fail "unknown argument $1" "leave it out, or say --private or --complete" ;;
esac

# version QEMU prints its version, say 10.0.2.
version() { "$1" --version 2>/dev/null | sed -n '1s/.*version \([0-9][0-9.]*[0-9]\).*/\1/p'; }

# ready: is what the link points to usable and new enough?
ready() { [ -e "$link/.ready" ] && found=$(version "$link/bin/qemu-system-x86_64") && [ "${found%%.*}" -ge 9 ] 2>/dev/null; }

# publish NAME turns the link to NAME at once.
publish() {
	ln -sfn "$1" "$link.$$"
	mv -T "$link.$$" "$link"
}

# adopt makes a folder of links to the system's own QEMU.
adopt() {
	folder=$cache/qemu-system-$found
	mkdir -p "$folder/bin"
	for tool in $tools; do
		path=$(command -v "$tool") || continue
		ln -sfn "$path" "$folder/bin/$tool"
	done
	: >"$folder/.ready"
	publish "${folder##*/}"
	say "uses this system's QEMU $found"
}

# wrap writes the wrapper that runs one unpacked program with its own libraries.
wrap() {
	root=$1 tool=$2
	program=$root/usr/bin/$tool
	[ -e "$program" ] || return 0
	arguments=''
	if [ "$tool" = qemu-system-x86_64 ]; then
		arguments="-L '$final/usr/share/qemu' -L '$final/usr/share/seabios' -L '$final/usr/lib/ipxe/qemu'"
	fi
	{
		echo "#!/bin/sh"
		echo "# Written by qemu.sh: $tool with the libraries unpacked beside it."
		echo "root='$final'"
		echo 'libs=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu'
		echo 'export QEMU_MODULE_DIR="$root/usr/lib/x86_64-linux-gnu/qemu"'
		if [ -e "$root/.complete" ]; then
			echo "exec \"\$root/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2\" --argv0 $tool --library-path \"\$libs\" \"\$root/usr/bin/$tool\" $arguments \"\$@\""
		else
			echo 'export LD_LIBRARY_PATH="$libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"'
			echo "exec \"\$root/usr/bin/$tool\" $arguments \"\$@\""
		fi
	} >"$root/bin.part/$tool"
	chmod 755 "$root/bin.part/$tool"
}

# unpack brings QEMU from Debian's backports.
unpack() {
	fresh=$cache/qemu-unpacked.$$
	trap 'rm -rf "$fresh"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	complete=''
	if [ "$choice" = complete ]; then complete=-c; fi
	sh "$here/debs.sh" -b $complete "$fresh" qemu-system-x86 qemu-utils ||
		fail "QEMU could not be unpacked (see above)" "or install QEMU 9 or newer yourself, and run this again"
	debian=$(sed -n 's/^qemu-system-x86 \([^ ]*\) .*/\1/p' "$fresh/.packages")
	found=$(echo "$debian" | sed 's/^[0-9]*://; s/[+~-].*//')
	final=$cache/qemu-$found${complete:+-complete}
	mkdir -p "$fresh/bin.part"
	for tool in $tools; do wrap "$fresh" "$tool"; done
	mv "$fresh/bin.part" "$fresh/bin"
	: >"$fresh/.ready"
	rm -rf "$final" # left over and unusable, or this would not run
	mv -T "$fresh" "$final"
	publish "${final##*/}"
	[ "$(version "$link/bin/qemu-system-x86_64")" = "$found" ] ||
		fail "QEMU does not run: $("$link/bin/qemu-system-x86_64" --version 2>&1 | head -n 1)" "run: $0 --complete"
	say "unpacked QEMU $found ($debian); the system is as it was"
}

mkdir -p "$cache" 2>/dev/null || fail "cannot write to $cache" "set XDG_CACHE_HOME to a folder of yours"
command -v flock >/dev/null || fail "there is no flock" "apt-get install util-linux"
exec 9>"$cache/.lock"
flock 9 # two runs at once: the second finds what the first made
case $choice in
any) if ready; then echo "$link/bin" && exit; fi ;;
private | complete) case $(readlink "$link" 2>/dev/null) in
	qemu-system-*) ;;
	qemu-*-complete) if ready; then echo "$link/bin" && exit; fi ;;
	qemu-*) if [ "$choice" = private ] && ready; then echo "$link/bin" && exit; fi ;;
	esac ;;
esac
for stale in "$cache"/qemu-unpacked.*; do # left by runs that were killed
	kill -0 "${stale##*.}" 2>/dev/null || rm -rf "$stale"
done
if [ "$choice" = any ] && command -v qemu-img >/dev/null && found=$(version qemu-system-x86_64) && [ -n "$found" ]; then
	if [ "${found%%.*}" -ge 9 ]; then
		adopt
		echo "$link/bin"
		exit
	fi
	say "this system's QEMU $found is older than 9 and stays unused"
fi
unpack
echo "$link/bin"
