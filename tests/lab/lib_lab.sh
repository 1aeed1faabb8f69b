# lib_lab.sh - for tests that run programs in the lab, with and without the library. Sourced; tests/run sets HV_LIB, HV_BUILD, HV_QUICK.

skip() { echo "$*"; exit 77; }
lab() { hvaccel-lab "$@"; }

lab_start() { # OPTION... of hvaccel-lab up
	[ -f "${HV_LIB:-}" ] || skip "the library is not built: ${HV_LIB:-HV_LIB unset}"
	command -v hvaccel-lab >/dev/null || skip "hvaccel-lab is not built"
	tmp=$(mktemp -d)
	trap lab_stop EXIT
	trap 'exit 1' INT TERM HUP
	lab up "$@" || exit 1
	rst0=$(rsts)
}
lab_stop() {
	local rc=$?
	lab down
	rm -rf "$tmp"
	exit $rc
}

# The VM's count of resets that its kernel has sent, ever.
rsts() { lab exec vm -- awk '$1 == "Tcp:" && $2 ~ /^[0-9]/ { print $15 }' /proc/net/snmp; }

# hv WHERE CMD...: under the library. Short hold-down: these tests take the VF away all the time.
hv() {
	local where=$1
	shift
	lab exec "$where" -- env LD_PRELOAD="$HV_LIB" HVACCEL_HOLD_MS=${HOLD_MS:-100} HVACCEL_HOLD_MAX_MS=${HOLD_MS:-100} HVACCEL_MOVE_MIN_MS=${MOVE_MIN_MS:-100} \
		HVACCEL_SUMMARY="$tmp/summary-$where" ${HV_LOG:+HVACCEL_LOG=$HV_LOG} "$@"
}

# summary WHERE KEY: a figure of the last process there, by path: promotions, demoted_because.VF_LOST, ...
summary() {
	python3 - "$tmp/summary-$1" "$2" <<'PY'
import json, sys
total = 0
for line in open(sys.argv[1]):
    v = json.loads(line)
    for k in sys.argv[2].split('.'):
        v = v.get(k, 0) if isinstance(v, dict) else 0
    total += v
print(int(total))
PY
}

# churn N PAUSE: take the VF away and give it back N times, every second time by surprise.
churn() {
	local i
	for ((i = 1; i <= $1; i++)); do
		sleep "$2"
		if ((i % 2)); then lab vf-remove; else lab vf-remove --surprise 20; fi || { echo "vf-remove $i failed"; return 1; }
		sleep "$(awk "BEGIN { print $2 / 2 }")"
		lab vf-add || { echo "vf-add $i failed"; return 1; }
	done
}

failed=0
check() { # DESCRIPTION COMMAND...
	local what=$1
	shift
	if "$@"; then echo "ok: $what"; else echo "FAILED: $what ($*)"; failed=$((failed + 1)); fi
}
no_resets() { local now; now=$(rsts); [ "$now" = "$rst0" ] || { echo "the VM's kernel sent $((now - rst0)) resets"; return 1; }; }
verdict() { [ "$failed" = 0 ] || { echo "$failed failed"; exit 1; }; exit 0; }

# stdin to stdout in pieces of 32 KB, with a pause behind each: there are calm moments, whatever the connection can carry.
with_pauses() { python3 -c '
import sys, time
while True:
    b = sys.stdin.buffer.read(1 << 15)
    if not b: break
    sys.stdout.buffer.write(b)
    sys.stdout.flush()
    time.sleep(0.02)
'; }

# transfer NAME RECEIVER SENDER WHERE LISTEN ADDRESS TIMES: stdin goes through two socats, the receiving one in WHERE, while the caller's meanwhile() moves the
# VF; RECEIVER and SENDER are "hv WHERE" or "lab exec WHERE --". What comes out has to have the sum $want, and to have been promoted so many times.
transfer() {
	local name=$1 recv=$2 send=$3 where=$4 listen=$5 addr=$6 times=$7 rc rx c
	rm -f "$tmp"/summary-*
	$recv timeout 200 socat -u $listen:7000,reuseaddr - 2>"$tmp/rx.err" | sha256sum >"$tmp/got" &
	rx=$!
	wait_port $where 7000 </dev/null || { failed=$((failed + 1)); return; }
	meanwhile >"$tmp/meanwhile" 2>&1 &
	c=$!
	$send timeout ${LIMIT:-200} socat -u - $addr:7000 2>"$tmp/tx.err"
	rc=$?
	wait $rx
	wait $c
	sed 's/^/   /' "$tmp/meanwhile"
	cat "$tmp/rx.err" "$tmp/tx.err"
	check "$name: the sender ends without error" test $rc = 0
	check "$name: what arrived is what was sent" test "$(cat "$tmp/got")" = "$want"
	check "$name: it was on the VF, $times times at least" test "$(summary vm promotions)" -ge $times
	check "$name: no resets" no_resets
}

wait_port() { # WHERE PORT
	local i
	for ((i = 0; i < 500; i++)); do
		lab exec "$1" -- ss -Hltn "sport = :$2" | grep -q . && return 0
		sleep 0.02
	done
	echo "nothing listens on port $2 in $1"
	return 1
}
