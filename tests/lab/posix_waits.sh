#!/bin/bash
# limit: 900
# Every kind of wait (waits.c), while the socket stays, becomes hot, loses its VF or gets it: the same program, once on the kernel and once under the library,
# has to say the same. The kernel is run in the same lab with the same moves.
set -u
. "$HV_SRC/tests/lab/lib_lab.sh"
waits=$HV_BUILD/tests/lab/waits
lab_start
lab exec peer "$HV_BUILD/tests/lab/peer" "$tmp/ctl" 2>"$tmp/peer.err" &
moves="cold hot remove add promote"
[ "$HV_QUICK" = 0 ] || moves="hot remove"

on_kernel() { lab exec vm "$waits" "$tmp/ctl" "$@" 2>/dev/null; }
under_library() { MOVE_MIN_MS=0 hv vm "$waits" "$tmp/ctl" "$@" 2>"$tmp/cpu"; }

for move in $moves; do
	case $move in
	promote | remove) on_kernel "$move" >"$tmp/kernel" ;; # a kernel socket doesn't notice the others
	*) [ -s "$tmp/cold" ] || on_kernel cold >"$tmp/cold"; sed "s|/cold:|/$move:|" "$tmp/cold" >"$tmp/kernel" ;;
	esac
	grep -q . "$tmp/kernel" || { echo "no output on the kernel"; exit 1; }
	under_library "$move" >"$tmp/library"
	echo "== $move: $(wc -l <"$tmp/library") cases; most CPU time: $(sort -t' ' -k3 -rn "$tmp/cpu" | grep ': cpu' | sort -k3 -rn | head -n 1)"
	check "$move: under the library as on the kernel (< kernel, > library)" diff "$tmp/kernel" "$tmp/library"
done

# Otherwise the kernel would have been compared with itself.
moved=$(summary vm promotions)
lost=$(summary vm demoted_because.VF_LOST)
echo "promotions: $moved, of which lost their VF: $lost"
check "sockets were on the VF" test "$moved" -ge 50
check "the VF was lost under them" test "$lost" -ge 10
verdict
