#!/bin/bash
# softvf_perftest.sh - the distribution's unmodified perftest and ibv_devinfo, linked against the real libibverbs and its providers, run over softvf
# between two namespaces. Shows that softvf is a libibverbs to programs that never heard of it. Figures are printed, not judged.
# limit: 120
set -u
lib=${SOFTVF_LIB:-}
for d in "${HV_BUILD:-.}" "$(dirname "$0")/../.." .; do
	[ -n "$lib" ] || { [ -e "$d/src/softvf/.libs/libibverbs.so.1" ] && lib=$(cd "$d/src/softvf/.libs" && pwd); }
done
skip() { echo "SKIP: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root for network namespaces and XDP"
[ -n "$lib" ] || skip "softvf isn't built (set HV_BUILD or SOFTVF_LIB to where it is)"
for c in raw_ethernet_lat raw_ethernet_bw ibv_devinfo ip ethtool timeout; do
	command -v $c >/dev/null || skip "$c is not installed"
done
a=svp$$a b=svp$$b va=svpvf0 vb=svppe0 tmp=$(mktemp -d) fail=0
cleanup() {
	jobs -p | xargs -r kill 2>/dev/null
	wait 2>/dev/null
	ip netns del $a 2>/dev/null
	ip netns del $b 2>/dev/null
	rm -rf "$tmp"
}
trap cleanup EXIT
ip netns add $a && ip netns add $b || skip "can't make network namespaces"
ma=02:00:00:00:91:04 mb=02:00:00:00:91:09 ia=10.91.0.4 ib=10.91.0.9
ip -n $a link add $va address $ma type veth peer name $vb address $mb netns $b &&
	ip -n $a addr add $ia/24 dev $va && ip -n $b addr add $ib/24 dev $vb &&
	ip -n $a link set $va up && ip -n $b link set $vb up || exit 1
ip netns exec $a ethtool -K $va tx off >/dev/null
ip netns exec $b ethtool -K $vb tx off >/dev/null
in_a() { LD_LIBRARY_PATH=$lib SOFTVF_DEVICES='svp*' ip netns exec $a "$@"; }
in_b() { LD_LIBRARY_PATH=$lib SOFTVF_DEVICES='svp*' ip netns exec $b "$@"; }

check() { # what, command...
	local what=$1
	shift
	if "$@"; then echo "ok: $what"; else echo "FAILED: $what"; fail=1; fi
}

timeout 20 ibv_devinfo -l >/dev/null 2>&1 # must not crash without softvf either
in_a timeout 20 ibv_devinfo -v >"$tmp/devinfo" 2>&1
check "ibv_devinfo exits with 0" test $? = 0
check "ibv_devinfo shows the device" grep -q "hca_id:.*softvf_$va" "$tmp/devinfo"
check "ibv_devinfo shows an active Ethernet port" sh -c "grep -q PORT_ACTIVE $tmp/devinfo && grep -q 'link_layer:.*Ethernet' $tmp/devinfo"

# Both ends match on what arrives: -J and -j are the addresses of the frames that the server receives.
pair() { # tool, name, size, further arguments
	local tool=$1 name=$2 size=$3
	shift 3
	in_b timeout 30 $tool -d softvf_$vb --server -F -s $size -B $mb -E $ma -J $ib -j $ia -K 5000 -k 5000 "$@" >"$tmp/$name.s" 2>&1 &
	local srv=$!
	for _ in $(seq 100); do # its rule is in place when it has bound the queue and printed the table's head
		in_b test -d /proc/$srv || break
		ip -n $b -d link show $vb | grep -q xdp && break
		sleep 0.1
	done
	sleep 0.3
	in_a timeout 30 $tool -d softvf_$va --client -F -s $size -B $ma -E $mb -J $ib -j $ia -K 5000 -k 5000 "$@" >"$tmp/$name.c" 2>&1
	local rc=$?
	wait $srv
	local rs=$?
	check "$tool, $size octets: client" test $rc = 0
	check "$tool, $size octets: server" test $rs = 0
	check "$tool, $size octets: a result" grep -Eq "^ *$size +[0-9]+ +[0-9.]+" "$tmp/$name.c"
	[ $fail = 0 ] || { tail -n 5 "$tmp/$name.c" "$tmp/$name.s"; return; }
	grep -E "^ *(#bytes|$size) " "$tmp/$name.c" | sed 's/^/   /'
}
pair raw_ethernet_lat lat 64 -n 20000
pair raw_ethernet_lat lat2 1500 -n 5000
# by time, not by number: the wire may lose frames, and the server would wait for them
pair raw_ethernet_bw bw 64 -D 3
pair raw_ethernet_bw bw2 1500 -D 3
exit $fail
