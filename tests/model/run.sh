#!/bin/sh
# run.sh [long] - model check of the hand-off order. Exit 0: the right order holds and each wrong one has a counterexample; 77: no spin or no compiler.
# long: the right order only, with more of everything at once, by a search that keeps a hash of each state (not complete, but far wider); 4 GB, hours.
# limit: 600
set -u
model=$(cd "$(dirname "$0")" && pwd)/handoff.pml
command -v spin >/dev/null 2>&1 || { echo "model: spin not found"; exit 77; }
cc=${CC:-cc}
command -v "${cc%% *}" >/dev/null 2>&1 || { echo "model: no compiler"; exit 77; }
dir=$(mktemp -d) || exit 99
trap 'rm -rf "$dir"' EXIT INT TERM
cd "$dir" || exit 99

# check NAME SPINFLAGS [CFLAGS [PANFLAGS]]: prints "errors states".
check() {
	rm -f pan* ./*.trail
	# shellcheck disable=SC2086
	spin $2 -a "$model" >spin.out 2>&1 || { cat spin.out >&2; return 1; }
	$cc -w -DSAFETY ${3:--O1 -DCOLLAPSE -DMEMLIM=3000} -o pan pan.c >cc.out 2>&1 || { cat cc.out >&2; return 1; }
	timeout "${MODEL_TIMEOUT:-300}" ./pan ${4:--m200000} -n >pan.out 2>&1 || { echo "model: $1: search did not finish" >&2; cat pan.out >&2; return 1; }
	if grep -q 'max search depth too small' pan.out; then echo "model: $1: depth too small" >&2; return 1; fi
	sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out
	sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.out
}

# right SPINFLAGS [CFLAGS [PANFLAGS]]
right() {
	size=$1
	res=$(check right "$@") || rc=1
	# shellcheck disable=SC2086
	set -- $res
	echo "right order ($size): ${1:-?} errors, ${2:-?} states"
	[ "${1:-1}" = 0 ] || { grep '^pan:' pan.out; rc=1; }
}

rc=0
if [ "${1:-}" = long ]; then
	MODEL_TIMEOUT=${MODEL_TIMEOUT:-14400}
	for size in "-DN=2 -DM=1 -DMOVES=2 -DTHREADS=2 -DMOVERS=2" "-DN=3 -DM=2 -DMOVES=3"; do
		right "$size" "-O2 -DBITSTATE" "-m1000000 -w34 -k3"
	done
	exit $rc
fi

# One of each; two threads that call and two that move; two moves in a row: all of it at once is no more than a longer search.
right "-DN=1 -DM=1 -DMOVES=1"
if [ "${HV_QUICK:-0}" != 1 ]; then
	right "-DN=1 -DM=0 -DMOVES=1 -DTHREADS=2 -DMOVERS=2"
	right "-DN=1 -DM=0 -DMOVES=2"
fi
for bad in NOLATE NOBARRIER NOGUARD EARLYFILTER NOPURGE FINASDATA NOWAITFIN NOFILTER EAGER NORCV UNFROZEN \
	NOINFLIGHT LOOKFIRST NOCAS NOLOCK NOTMOVING PINFIRST; do
	search=
	case $bad in
	NOWAITFIN) size="-DM=1 -DMOVES=2" ;;
	NOCAS) size="-DM=0 -DMOVES=2 -DMOVERS=2" search="-O1 -DCOLLAPSE -DMEMLIM=3000 -DBFS" ;; # near the start, in a large tree
	NOLOCK | NOTMOVING) size="-DM=0 -DMOVES=1 -DMOVERS=2" ;;
	NOINFLIGHT | LOOKFIRST | PINFIRST) size="-DM=0 -DMOVES=1" ;;
	*) size="-DM=1 -DMOVES=1" ;;
	esac
	res=$(check "$bad" "-D$bad -DN=1 $size" "$search") || rc=1
	# shellcheck disable=SC2086
	set -- $res
	why=$(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' pan.out | head -n 1)
	echo "$bad: ${1:-?} errors${why:+ ($why)}"
	[ "${1:-0}" != 0 ] || rc=1
done
exit $rc
