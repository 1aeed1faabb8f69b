#!/bin/sh
# The VF's monitor and the route look-up against a real kernel, in namespaces of its own: handoff_watch.sh [program]. Exits 0, 1 or 77.
prog=${1:-${HV_BUILD:-.}/tests/lab/handoff_watch}
[ "$(id -u)" = 0 ] && [ -x "$prog" ] || { echo "handoff_watch: needs root and the program $prog"; exit 77; }
command -v ip >/dev/null || { echo "handoff_watch: needs ip"; exit 77; }
vm=hvhw$$'v'
PEER=hvhw$$'p'
export PEER
trap 'ip netns del $vm 2>/dev/null; ip netns del $PEER 2>/dev/null' EXIT
trap 'exit 1' INT TERM
ip netns add $vm && ip netns add "$PEER" || exit 77
ip -n $vm link add eth0 address 02:00:00:00:00:01 type bridge || { echo "handoff_watch: no bridges here"; exit 77; }
ip -n $vm link add vf0 type veth peer name p0 netns "$PEER" || exit 77
ip -n $vm link set lo up
ip -n $vm link set vf0 master eth0 up
ip -n $vm link set eth0 up
ip -n $vm addr add 10.98.0.1/24 dev eth0
ip -n $vm addr add fd98::1/64 dev eth0 nodad
ip -n "$PEER" link set p0 up
timeout 100 ip netns exec $vm "$prog"
rc=$?
[ $rc = 0 ] || echo "handoff_watch: failed ($rc)"
exit $rc
