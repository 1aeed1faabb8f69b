#!/bin/bash
# moves_storm.sh - 200 connections with checked streams both ways, promoted and demoted all the time, the VF taken away and given back in between:
# no octet wrong, none missing, no reset. moves_storm.sh [MOVES [SEED]]: rounds until there have been that many moves.
# limit: 170
set -u
. "$(dirname "$0")/lib_lab.sh"
prog=$HV_BUILD/tests/lab/storm
[ -x "$prog" ] || skip "tests/lab/storm is not built: make check TESTS="
target=${1:-20000} seed=${2:-1} conns=200 secs=${STORM_SECONDS:-5} total=0 round=0 port=7700
[ "${HV_QUICK:-0}" = 0 ] || { target=1 secs=2; }
export HVACCEL_PROMOTE=1 MOVE_MIN_MS=0
lab_start
peer_rsts() { lab exec peer -- awk '$1 == "Tcp:" && $2 ~ /^[0-9]/ { print $15 }' /proc/net/snmp; }
peer_rst0=$(peer_rsts)
no_peer_resets() { local now; now=$(peer_rsts); [ "$now" = "$peer_rst0" ] || { echo "the peer's kernel sent $((now - peer_rst0)) resets"; return 1; }; }
here() { shift; lab exec peer -- "$@"; }

one() { # NAME SERVER'S-LAUNCHER ADDRESS CHURNS
	local name=$1 launch=$2 addr=$3 churns=$4 s p rc moves few
	rm -f "$tmp"/summary-* "$tmp"/out-*
	port=$((port + 1)) seed=$((seed + 1))
	$launch peer timeout 120 "$prog" serve $port $conns "$tmp/out-peer" $seed >"$tmp/peer" 2>&1 &
	s=$!
	wait_port peer $port || exit 1
	hv vm timeout 110 "$prog" run "$addr" $port $conns "$tmp/out-vm" "$secs" $seed >"$tmp/vm" 2>&1 &
	p=$!
	if [ "$churns" != 0 ]; then
		churn "$churns" "$(awk "BEGIN { print $secs / ($churns + 1) / 1.8 - 0.1 }")" >"$tmp/churn" 2>&1
		check "$name: the VF went and came back $churns times" test $? = 0
	fi
	wait $p
	rc=$?
	cat "$tmp/vm"
	check "$name: our end" test $rc = 0
	wait $s
	rc=$?
	cat "$tmp/peer"
	check "$name: the other end" test $rc = 0
	check "$name: each end received what the other had sent" cmp "$tmp/out-vm" "$tmp/out-peer"
	check "$name: no resets" no_resets
	check "$name: none from the peer" no_peer_resets
	moves=$(($(summary vm promotions) + $(summary vm demotions)))
	few=
	[ "$launch" != hv ] || moves=$((moves + $(summary peer promotions) + $(summary peer demotions)))
	[ "$launch" != hv ] || [ "$(summary peer promotions)" -ge $conns ] || few="the other end moved too"
	[ "$churns" = 0 ] || [ "$(summary vm demoted_because.VF_LOST)" -ge 20 ] || few="VF losses moved many at once"
	total=$((total + moves))
	echo "   $moves moves; demotions by the program $(summary vm demoted_because.CALL), because the VF went $(summary vm demoted_because.VF_LOST)," \
		"retried $(summary vm demotion_retries); late accepts $(summary vm late_accepts), purges $(summary vm purges); total $total"
	# On a busy machine the time may be over, or the VF gone again, before enough was moved.
	[ -n "$few" ] && [ $failed = 0 ] || return
	secs=$((secs * 2))
	[ $secs -le 16 ] || { check "$name: $few" false; return; }
	one "$name, longer" "$launch" "$addr" "$churns"
}
while [ $total -lt "$target" ] && [ $failed = 0 ] && { [ $# -gt 0 ] || [ $round -lt 2 ]; }; do
	round=$((round + 1))
	one "$round kernel peer" here 10.77.0.1 0
	one "$round both ends accelerated" hv 10.77.0.1 0
	one "$round IPv6" here fd00::1 0
	one "$round VF churn" here 10.77.0.1 4
done
echo "$total moves, $failed failures, resets: vm $(($(rsts) - rst0)), peer $(($(peer_rsts) - peer_rst0))"
verdict
