#!/bin/bash
# limit: 200
# Signals that come while a thread is anywhere in a call on a hot socket (preload_signals.c): under the library as on the kernel.
set -u
. "$HV_SRC/tests/lab/lib_lab.sh"
signals=$HV_BUILD/tests/lab/preload_signals
lab_start
lab exec peer "$HV_BUILD/tests/lab/peer" "$tmp/ctl" 2>"$tmp/peer.err" &

lab exec vm "$signals" "$tmp/ctl" hot >"$tmp/kernel" 2>/dev/null
grep -q . "$tmp/kernel" || { echo "no output on the kernel"; exit 1; }
MOVE_MIN_MS=0 hv vm "$signals" "$tmp/ctl" hot >"$tmp/library" 2>"$tmp/cpu"
cat "$tmp/library"
check "under the library as on the kernel (< kernel, > library)" diff "$tmp/kernel" "$tmp/library"

# Otherwise the kernel would have been compared with itself.
moved=$(summary vm promotions)
echo "promotions: $moved"
check "sockets were on the VF" test "$moved" -ge 8
verdict
