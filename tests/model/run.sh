#!/bin/sh
# limit: 600
# Model check of the hand-off order. Exit 0: the right order holds and each wrong one has a counterexample; 77: no spin or no compiler.
set -u
model=$(cd "$(dirname "$0")" && pwd)/handoff.pml
command -v spin >/dev/null 2>&1 || { echo "model: spin not found"; exit 77; }
cc=${CC:-cc}
command -v "${cc%% *}" >/dev/null 2>&1 || { echo "model: no compiler"; exit 77; }
dir=$(mktemp -d) || exit 99
trap 'rm -rf "$dir"' EXIT INT TERM
cd "$dir" || exit 99

# check NAME SPINFLAGS: prints "errors states" of an exhaustive search.
check() {
	rm -f pan* ./*.trail
	# shellcheck disable=SC2086
	spin $2 -a "$model" >spin.out 2>&1 || { cat spin.out >&2; return 1; }
	$cc ${3:--O0} -w -DSAFETY -DCOLLAPSE -DMEMLIM=1500 -o pan pan.c >cc.out 2>&1 || { cat cc.out >&2; return 1; }
	timeout "${MODEL_TIMEOUT:-200}" ./pan -m200000 -n >pan.out 2>&1 || { echo "model: $1: search did not finish" >&2; cat pan.out >&2; return 1; }
	if grep -q 'max search depth too small' pan.out; then echo "model: $1: depth too small" >&2; return 1; fi
	sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out
	sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.out
}

rc=0
# Two octets and one move, then one octet and two moves in a row: both at once is no more than a longer search.
for size in "-DN=2 -DMOVES=1" "-DN=1 -DMOVES=2"; do
	[ "${HV_QUICK:-0}" = 1 ] && [ "$size" = "-DN=2 -DMOVES=1" ] && continue
	res=$(check right "$size" -O2) || rc=1
	# shellcheck disable=SC2086
	set -- $res
	echo "right order ($size): ${1:-?} errors, ${2:-?} states"
	[ "${1:-1}" = 0 ] || { grep '^pan:' pan.out; rc=1; }
done
for bad in NOLATE NOBARRIER NOGUARD EARLYFILTER NOPURGE FINASDATA NOWAITFIN NOFILTER EAGER NORCV UNFROZEN; do
	moves=1
	[ "$bad" = NOWAITFIN ] && moves=2
	res=$(check "$bad" "-D$bad -DN=1 -DMOVES=$moves") || rc=1
	# shellcheck disable=SC2086
	set -- $res
	why=$(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' pan.out | head -n 1)
	echo "$bad: ${1:-?} errors${why:+ ($why)}"
	[ "${1:-0}" != 0 ] || rc=1
done
exit $rc
