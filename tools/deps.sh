#!/bin/bash
# deps.sh - the Debian packages that building, testing and the demo need, and why.
#
#   tools/deps.sh [list|missing|install]   (default: missing)
#
# install runs apt-get (as root) for what is missing. On other distributions: install the equivalents of `tools/deps.sh list` by hand.
set -u

# package | why
packages() {
	cat <<-'END'
	gcc|compiles the library
	libc6-dev|C library headers
	make|runs the build
	autoconf|makes configure from configure.ac
	automake|makes Makefile.in from the local.mk fragments
	libtool|builds shared libraries
	pkg-config|finds libnl and cmocka
	libibverbs-dev|infiniband/verbs.h, the interface to the VF
	libnl-3-dev|headers that the mlx5 direct verbs headers and netlink code expect
	libcmocka-dev|unit tests
	clang|second compiler; compiles the BPF programs
	llvm|llvm-strip and llvm-profdata for BPF objects and the fuzzers
	bpftool|turns BPF objects into headers (only needed to change them); the lab looks at maps with it
	iproute2|network namespaces, veth and tc of the lab
	ethtool|switches offloads of the lab's devices
	util-linux|unshare, setpriv, flock, prlimit: tests run in namespaces of their own
	libcap2-bin|capsh: tests without privileges
	procps|ps and pkill in tests
	python3|benchmarks, reports and the asyncio test
	iperf3|a real program to accelerate: bulk TCP
	sockperf|a real program to accelerate: latency
	perftest|an independent judge of softvf's verbs
	ibverbs-utils|ibv_devinfo against softvf
	tcpdump|shows that the kernel never sees accelerated packets
	socat|small peers in tests
	strace|counts system calls in tests
	groff-base|checks the manual pages
	openssh-client|preload test: ssh -V
	spin|checks the model of the hand-off
	valgrind|counts the instructions of the TCP core
	redis-server|a real program to accelerate: event loop
	redis-tools|its client and benchmark
	nginx-light|a real program to accelerate: prefork web server
	memcached|a real program to accelerate: threads
	END
}

have() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# pkg-config is provided by pkgconf, nginx-light by any nginx: the program counts.
present() {
	case $1 in
	pkg-config) command -v pkg-config >/dev/null ;;
	nginx-light) command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] ;;
	*) have "$1" ;;
	esac
}

missing() {
	local pkg why
	while IFS='|' read -r pkg why; do
		present "$pkg" || printf '%s|%s\n' "$pkg" "$why"
	done < <(packages)
}

case ${1:-missing} in
list) packages | column -t -s '|' ;;
missing)
	command -v dpkg-query >/dev/null || { echo "deps.sh: not a Debian system; needed are:"; packages; exit 0; }
	missing
	;;
install)
	if ! command -v apt-get >/dev/null; then
		echo "deps.sh: no apt-get here; make sure that you have the equivalents of: $(packages | cut -d'|' -f1 | tr '\n' ' ')"
		exit 0
	fi
	list=$(missing)
	[ "$list" ] || exit 0
	echo "Debian packages to install:"
	echo "$list" | sed 's/^\([^|]*\)|/  \1: /'
	[ "$(id -u)" = 0 ] || { echo "deps.sh: installing needs root" >&2; exit 1; }
	pkgs=$(echo "$list" | cut -d'|' -f1)
	export DEBIAN_FRONTEND=noninteractive
	# A package may start a service when it's installed (redis, nginx): not on the machine that only wants to test.
	policy=/usr/sbin/policy-rc.d made=
	[ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && made=yes; }
	trap '[ -z "$made" ] || rm -f $policy' EXIT
	# shellcheck disable=SC2086
	apt-get install -y --no-install-recommends $pkgs </dev/null && exit 0
	# shellcheck disable=SC2086
	apt-get update </dev/null && apt-get install -y --no-install-recommends $pkgs </dev/null && exit 0
	echo "deps.sh: apt-get could not install all of them; what needs the missing ones will be skipped or fail" >&2
	exit 1
	;;
*) echo "usage: deps.sh [list|missing|install]" >&2; exit 2 ;;
esac
