#!/bin/bash
# limit: 400
# A wide sweep of socket calls, flags and errors (calls.c) on hot sockets: the same program, once on the kernel and once under the library, has to say the same.
set -u
. "$HV_SRC/tests/lab/lib_lab.sh"
calls=$HV_BUILD/tests/lab/calls
lab_start
lab exec peer -- sh -c 'echo 0 >/proc/sys/net/ipv4/icmp_ratelimit' # each refused datagram says so
lab exec peer "$HV_BUILD/tests/lab/peer" "$tmp/ctl" 2>"$tmp/peer.err" &

lab exec vm "$calls" "$tmp/ctl" hot >"$tmp/kernel" 2>/dev/null
grep -q . "$tmp/kernel" || { echo "no output on the kernel"; exit 1; }
MOVE_MIN_MS=0 hv vm "$calls" "$tmp/ctl" hot >"$tmp/library" 2>"$tmp/cpu"
echo "$(grep -c '/hot:' "$tmp/library") cases"
check "under the library as on the kernel (< kernel, > library)" diff "$tmp/kernel" "$tmp/library"

# Otherwise the kernel would have been compared with itself.
moved=$(summary vm promotions)
echo "promotions: $moved"
check "sockets were on the VF" test "$moved" -ge 40
verdict
