#!/bin/sh
# Live TCP connections moved between the kernel and a minimal owner, in namespaces of its own: handoff_move.sh [program [--cycles N]]
# limit: 300
# Exits 0, 1 or 77 (not root, no namespaces). Four programs run at the same time: a move waits for an RCU grace period, not for the CPU.
prog=${1:-${HV_BUILD:-.}/tests/lab/handoff_move}
[ $# -gt 0 ] && shift
[ "$(id -u)" = 0 ] && [ -x "$prog" ] || { echo "handoff_move: needs root and the program $prog"; exit 77; }
command -v ip >/dev/null && command -v ethtool >/dev/null || { echo "handoff_move: needs ip and ethtool"; exit 77; }
tag=hvho$$
tmp=$(mktemp -d) || exit 1
cleanup() {
	for i in 1 2 3 4; do ip netns del $tag$i'a' 2>/dev/null; ip netns del $tag$i'b' 2>/dev/null; done
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
bench() {
	a=$tag$1'a'
	b=$tag$1'b'
	ip netns add $a && ip netns add $b || exit 77
	ip -n $a link add ho0 type veth peer name ho0 netns $b || exit 77
	for n in $a:1 $b:2; do
		ns=${n%:*}
		ip netns exec $ns sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.ho0.accept_dad=0 2>/dev/null
		ip netns exec $ns ethtool -K ho0 tso off gso off gro off tx off rx off sg off >/dev/null 2>&1
		ip -n $ns addr add 10.99.0.${n#*:}/24 dev ho0
		ip -n $ns addr add fd99::${n#*:}/64 dev ho0 nodad
		ip -n $ns link set lo up
		ip -n $ns link set ho0 up
	done
}
run() { # number, arguments
	n=$1
	shift
	timeout 900 "$prog" "$@" >"$tmp/$n" 2>&1 &
	eval "pid$n=$!"
}
for i in 1 2 3 4; do bench $i; done
[ $# -gt 0 ] || set -- --cycles 250
run 1 "$@" --guard bpf $tag'1a' $tag'1b' ho0 client4 accept4 client6
run 2 "$@" --guard bpf --no-steal $tag'2a' $tag'2b' ho0 accept6 client-mapped accept-mapped
run 3 "$@" --guard socket $tag'3a' $tag'3b' ho0 client4 accept6 accept-mapped queues fin rst options no-route lost device late early-sent far rtt
run 4 "$@" --guard bpf $tag'4a' $tag'4b' ho0 queues fin rst options no-route undo fork refused lost ooo device late reuse early-sent far rtt
rc=0
for i in 1 2 3 4; do
	eval "wait \$pid$i"
	r=$?
	cat "$tmp/$i"
	[ $r = 0 ] || [ $rc != 0 ] || rc=$r
done
[ $rc = 0 ] || [ $rc = 77 ] || { echo "handoff_move: failed ($rc)"; rc=1; }
exit $rc
