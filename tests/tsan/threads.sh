#!/bin/bash
# threads.sh [SECONDS [SEED]] - data races of the library: many threads on the same sockets (threads.c), TCP and UDP, over IPv4 and IPv6, moved by policy,
# by calls that only the kernel can answer, by fork and by close, while the VF goes and comes; with the service thread beside them. Library, softvf and
# program are built with ThreadSanitizer.
#
# The library stands before libtsan in the order of symbols: a program's recv() is the library's, and what that calls is libtsan's. The other way round
# libtsan would take a blocking call for one of libc's and look away until it returns. handle_*=0: libtsan would install its handlers at a moment when it
# can't be called back yet, through the library's sigaction(). symbolize=0: it would read debug information in the middle of a report, through the
# library's close(), which takes its lock: libtsan isn't looking then, sees races that are none, and waits for itself. So addr2line does that, here. The
# library's raw system calls it doesn't see at all; it needn't.
# limit: 150
set -u
. "$HV_SRC/tests/lab/lib_lab.sh"
prog=$HV_BUILD/tests/tsan/threads
[ -x "$prog" ] || skip "tests/tsan/threads is not built: see make_tsan in ./check"
nm -D "${HV_LIB:-}" 2>/dev/null | grep -q __tsan_init || skip "the library is not built with ThreadSanitizer"
secs=${1:-6} seed=${2:-1} port=7800
MOVE_MIN_MS=0 HOLD_MS=50
export HVACCEL_PROMOTE=1
export TSAN_OPTIONS="handle_segv=0 handle_sigbus=0 handle_abort=0 handle_sigill=0 handle_sigfpe=0 symbolize=0 history_size=4 exitcode=66 suppressions=$HV_SRC/tests/tsan/suppressions.txt"
lab_start

plain() { shift; lab exec peer -- "$@"; }
# Without randomised addresses: where they have more bits than libtsan knows of, it doesn't start.
fixed=(setarch "$(uname -m)" -R)

# The reports in FILE, with places instead of addresses, and what else is in it.
told() { # FILE
	head -c 20000 "$1" | python3 -c '
import os, re, subprocess, sys
text, what, places = sys.stdin.read(), re.compile(r"<null> <null> \((\S+)\+0x([0-9a-f]+)\)"), {}
for f in sys.argv[1:]:
    found = sorted({m[2] for m in what.finditer(text) if m[1] == os.path.basename(f)})
    calls = [hex(int(a, 16) - 1) for a in found] # the call, not where it returns to
    said = subprocess.run(["addr2line", "-fpse", f], input="\n".join(calls), capture_output=True, text=True).stdout.splitlines() if found else []
    places.update({(os.path.basename(f), a): s for a, s in zip(found, said)})
sys.stdout.write(what.sub(lambda m: places.get((m[1], m[2]), m[0]), text))
' "$HV_LIB" "$HV_BUILD/src/softvf/.libs/libibverbs.so.1" "$prog"
}

one() { # NAME SERVER'S-LAUNCHER ADDRESS
	local name=$1 launch=$2 addr=$3 s p rc
	rm -f "$tmp"/summary-*
	port=$((port + 1)) seed=$((seed + 1))
	$launch peer "${fixed[@]}" "$prog" serve $port "$tmp/stop" >"$tmp/peer" 2>&1 &
	s=$!
	wait_port peer $port || exit 1
	hv vm "${fixed[@]}" "$prog" run "$addr" $port $secs "$seed" >"$tmp/vm" 2>&1 &
	p=$!
	churn $((secs / 2)) 0.8 >"$tmp/churn" 2>&1
	check "$name: the VF went and came back" test $? = 0
	wait $p
	rc=$?
	told "$tmp/vm"
	check "$name: our end, no race" test $rc = 0
	: >"$tmp/stop"
	wait $s
	rc=$?
	rm -f "$tmp/stop"
	told "$tmp/peer"
	check "$name: the other end, no race" test $rc = 0
	check "$name: sockets moved" test "$(summary vm promotions)" -ge 1
	echo "   $(summary vm promotions) promotions; demotions because of calls $(summary vm demoted_because.CALL), close $(summary vm demoted_because.CLOSE)," \
		"fork $(summary vm demoted_because.FORK), VF loss $(summary vm demoted_because.VF_LOST), idleness $(summary vm demoted_because.IDLE), slow reading $(summary vm demoted_because.SLOW_READER)"
}
one "IPv4" plain 10.77.0.1
# The other end, too: sockets that were accepted. Few buffers: slow readers. And nearly no patience with those who pause.
export HVACCEL_RX_SLOTS=64 HVACCEL_MEMORY_MB=2 HVACCEL_IDLE_MS=20
one "IPv6, both ends" hv fd00::1
verdict
