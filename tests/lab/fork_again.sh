#!/bin/bash
# After a fork a connection stays in the kernel as long as another process can reach it, and comes back to the VF when none can (src/engine/fork.c).
set -u
. "$HV_SRC/tests/lab/lib_lab.sh"
calls=$HV_BUILD/tests/lab/calls
lab_start
lab exec peer "$HV_BUILD/tests/lab/peer" "$tmp/ctl" 2>"$tmp/peer.err" &

run() { # CASE: prints how many promotions there were
	rm -f "$tmp/summary-vm"
	MOVE_MIN_MS=0 hv vm "$calls" "$tmp/ctl" hot "$1" >"$tmp/out" 2>/dev/null
	grep -q 'alive$' "$tmp/out" || cat "$tmp/out" >&2
	summary vm promotions
}
# A loaded machine may be too slow to have the VF open in time: such a run says nothing and is repeated.
try() { # CASE WANTED
	local n i
	for ((i = 0; i < 5; i++)); do
		n=$(run "$1")
		[ "$n" -lt "$2" ] || break
	done
	echo "   $1: $n promotions"
	[ "$n" -ge "$2" ] || return 1
	[ "$2" != 1 ] || [ "$n" = 1 ]
}
again() { try "$1" 2; }
once() { try "$1" 1; }

check "the child has ended" again fork-again
check "the child is another program, without the socket" again fork-exec
check "its copy of the socket was close-on-exec too" again fork-exec-dup-cloexec
check "the child stays" once fork-stays
check "the child has made a copy" once fork-closes
check "the child closes everything but the socket" once fork-closes-all
check "its own child stays" once fork-grandchild
check "the child's program has a copy" once fork-exec-dup
check "the child's program has the socket itself" once fork-exec-flag
check "the socket was never close-on-exec" once fork-exec-open
check "the child has changed an option" once fork-exec-opt
check "a program started by vfork() has a copy" once vfork-dup
verdict
