#!/bin/bash
# apps_iperf3.sh - iperf3, unmodified, under the library in the VM: TCP each way and UDP, while the VF is taken away and given back.
# limit: 240
set -u
. "$(dirname "$0")/lib_lab.sh"
command -v iperf3 >/dev/null || skip "iperf3 is not installed"
secs=30 moves=10
[ "${HV_QUICK:-0}" = 0 ] || secs=9 moves=3
pause=$(awk "BEGIN { print $secs / ($moves + 1) / 1.5 * 0.8 - 0.1 }") # the last return is well before the end, also on a slow machine
lab_start
lab exec peer -- iperf3 -s >"$tmp/server" 2>&1 &
wait_port peer 5201 || exit 1

result() { # FILE: no error, something was carried
	python3 - "$1" <<'PY'
import json, sys
r = json.load(open(sys.argv[1]))
if 'error' in r:
    sys.exit('iperf3: ' + r['error'])
e = r['end']
s = e.get('sum_received') or e['sum']
print('   %.2f Gbit/s' % (s['bits_per_second'] / 1e9))
sys.exit(0 if s['bytes'] > 0 else 'nothing was carried')
PY
}

one() { # NAME OPTION...
	local name=$1 rc
	shift
	rm -f "$tmp"/summary-*
	hv vm timeout $((secs + 30)) iperf3 -c 10.77.0.1 -J -t "$secs" "$@" >"$tmp/$name.json" 2>"$tmp/$name.err" &
	local p=$!
	churn "$moves" "$pause" >"$tmp/churn" 2>&1
	check "$name: the VF went and came back $moves times" test $? = 0
	# Before its end: with -R iperf3 closes a connection that has unread data, and then Linux sends a reset, with and without us.
	check "$name: still running" kill -0 $p
	check "$name: no resets" no_resets
	wait $p
	rc=$?
	rst0=$(rsts)
	sed 's/^/   /' "$tmp/churn"
	check "$name: iperf3 ends without error" test $rc = 0
	check "$name: nothing on its standard error" test ! -s "$tmp/$name.err"
	cat "$tmp/$name.err"
	check "$name: its result is whole" result "$tmp/$name.json"
	check "$name: it was on the VF and came back to it" test "$(summary vm promotions)" -ge 2
	check "$name: the kernel took it back at the first try each time" test "$(summary vm demotion_retries)" = 0
	echo "   promotions $(summary vm promotions), because the VF went: $(summary vm demoted_because.VF_LOST), longest failover $(summary vm failover.longest_us) us"
}
one tcp-out
one tcp-in -R
one udp -u -b 300M
verdict
