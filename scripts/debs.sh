#!/bin/sh
# Unpack Debian packages into a folder of their own, without installing them.
#
#   debs.sh [-b] [-o | -c] DEST PACKAGE...
#
# Neither the system's sources, its package lists, its cache nor its installed
# packages are read for writing or changed: apt works in a temporary folder with
# a sources list written here. Signatures are verified as always. Needs no root.
#
#   -b  prefer the release's backports
#   -o  only the packages named; linux-image-cloud-amd64 stands for the newest such kernel
#   -c  complete: with everything needed down to the C library, not just what this
#       system lacks; always so on a system that is not this Debian release
#
# DEST appears complete or not at all; if it is there already nothing is done.
# DEST/.packages lists what was unpacked, DEST/.complete exists after -c.
set -eu

release=bookworm
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "debs: $*" >&2; }
fail() {
	echo "debs: error: $1" >&2
	echo "debs: remedy: $2" >&2
	exit 1
}

# archive NAME prints the address of the Debian archive that this system's own
# apt uses for NAME (debian or debian-security), or nothing.
archive() {
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		grep -E "^(https?|file|mirror)[^ ]*/$1/?\$" | head -n 1 || true
}

# reason prints the line of apt's output that says what went wrong.
reason() { grep -m 1 '^E:' "$work/out" || grep -m 1 -E '^(Err|W):' "$work/out" || tail -n 1 "$work/out"; }

# configure writes the private apt configuration. Only how to reach the network
# is taken over from the system: neither its sources nor its hooks.
configure() {
	mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/none"
	signed="[signed-by=$keyring arch=amd64]"
	main=$(archive debian) security=$(archive debian-security)
	[ -n "$main" ] || fail "this system's apt knows no Debian archive" "add one to /etc/apt/sources.list"
	{
		echo "deb $signed $main $release main"
		echo "deb $signed $main $release-updates main"
		if [ -n "$security" ]; then echo "deb $signed $security $release-security main"; fi
		if [ -n "$backports" ]; then echo "deb $signed $main $release-backports main"; fi
	} >"$work/sources.list"
	status=/var/lib/dpkg/status
	if [ -n "$complete" ]; then
		status=$work/status
		: >"$status"
	fi
	{
		apt-config dump 2>/dev/null | grep -E '^Acquire::(https?|ForceIPv|Retries|Send-URI|Check-Date)' || true
		cat <<-END
			Dir::Etc::main "/dev/null";
			Dir::Etc::parts "$work/none";
			Dir::Etc::sourcelist "$work/sources.list";
			Dir::Etc::sourceparts "-";
			Dir::Etc::preferences "/dev/null";
			Dir::Etc::preferencesparts "$work/none";
			Dir::State "$work";
			Dir::State::lists "$work/lists";
			Dir::State::status "$status";
			Dir::State::extended_states "$work/extended_states";
			Dir::Cache "$work/cache";
			Dir::Log "$work";
			APT::Architecture "amd64";
			APT::Architectures { "amd64"; };
			APT::Install-Recommends "false";
			APT::Get::AllowUnauthenticated "false";
			Acquire::AllowInsecureRepositories "false";
			Acquire::AllowWeakRepositories "false";
			Acquire::AllowDowngradeToInsecureRepositories "false";
			Acquire::Languages "none";
			Acquire::Retries "3";
			Acquire::http::Timeout "30";
			Acquire::https::Timeout "30";
		END
	} >"$work/apt.conf"
	# apt drops its privileges to this user while it downloads.
	chmod 755 "$work"
	if [ "$(id -u)" = 0 ] && id _apt >/dev/null 2>&1; then
		chown -R _apt "$work/lists/partial" "$work/cache/archives/partial" "$work/debs"
	fi
	export APT_CONFIG="$work/apt.conf" LC_ALL=C
}

# wanted prints PACKAGE=VERSION for all that has to be unpacked.
wanted() {
	if [ -z "$only" ]; then
		apt-get --simulate --no-install-recommends ${backports:+-t $release-backports} install "$@" >"$work/plan" 2>"$work/out" ||
			fail "$(reason)" "try again later, or use a system with Debian $release"
		sed -n 's/^Inst \([^ ]*\) \(\[[^]]*\] \)\{0,1\}(\([^ ]*\).*/\1=\3/p' "$work/plan"
		return
	fi
	for package; do
		case $package in
		linux-image-cloud-amd64)
			package=$(apt-cache depends "$package" | sed -n 's/^ *Depends: \(linux-image-[0-9]\)/\1/p' | head -n 1)
			;;
		esac
		echo "$package"
	done
}

usage() {
	echo "usage: debs.sh [-b] [-o | -c] DEST PACKAGE..." >&2
	exit 2
}

backports='' only='' complete=''
while getopts boc flag; do
	case $flag in
	b) backports=yes ;;
	o) only=yes ;;
	c) complete=yes ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -ge 2 ] || usage
dest=$1
shift
if [ -e "$dest/.packages" ]; then exit 0; fi

for tool in apt-get apt-config apt-cache dpkg-deb gpgv; do
	command -v $tool >/dev/null || fail "there is no $tool" "use Debian or a relative of it, with apt, dpkg and gpgv"
done
[ "$(dpkg --print-architecture)" = amd64 ] || fail "this is not an amd64 system" "use one; other architectures are not supported"
[ -r $keyring ] || fail "Debian's keys are not on this system ($keyring)" "apt-get install debian-archive-keyring"
if [ -z "$only" ] && ! grep -qs "^VERSION_CODENAME=$release\$" /etc/os-release; then complete=yes; fi

work=$(mktemp -d "${TMPDIR:-/tmp}/dcnode-debs.XXXXXX")
staging=$dest.part.$$
trap 'rm -rf "$work" "$staging"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
configure
mkdir -p "$(dirname "$dest")" 2>/dev/null && [ -w "$(dirname "$dest")" ] ||
	fail "cannot write to $(dirname "$dest")" "set XDG_CACHE_HOME to a folder of yours"
for stale in "$dest".part.*; do # left by runs that were killed
	kill -0 "${stale##*.}" 2>/dev/null || rm -rf "$stale"
done

say "reads the package lists of $release${backports:+ and its backports} from $main"
apt-get --quiet=2 --error-on=any update >"$work/out" 2>&1 ||
	fail "package lists: $(reason)" \
		"check the network and the proxy of apt (it must reach $main)"

wanted "$@" >"$work/wanted"
[ -s "$work/wanted" ] || fail "apt has nothing for $*" "check that $main carries $release"
count=$(wc -l <"$work/wanted")
say "downloads $count packages: $(sed 's/=.*//' "$work/wanted" | tr '\n' ' ')"
(cd "$work/debs" && xargs apt-get --quiet=2 download <"$work/wanted") >"$work/out" 2>&1 ||
	fail "download: $(reason)" "check the network and the space in ${TMPDIR:-/tmp}"

mkdir "$staging"
for deb in "$work"/debs/*.deb; do
	dpkg-deb --extract "$deb" "$staging" || fail "cannot unpack ${deb##*/}" "check the space in $(dirname "$dest")"
	dpkg-deb --show --showformat='${Package} ${Version} ${Architecture}\n' "$deb" >>"$staging/.packages.part"
done
if [ -n "$complete" ]; then : >"$staging/.complete"; fi
mv "$staging/.packages.part" "$staging/.packages"
if ! mv -T "$staging" "$dest" 2>/dev/null; then
	[ -e "$dest/.packages" ] || fail "$dest is in the way" "remove it"
fi
say "unpacked to $dest ($(du -sh "$dest" | cut -f 1))"
