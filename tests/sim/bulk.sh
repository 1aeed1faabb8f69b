#!/bin/sh
# Bulk transfers in virtual time: no sender waits longer than the RTO allows before it tries again, equal flows share equally (Jain's index
# >= 0.95), and throughput is that of matrix.txt to within a tenth. A change that is meant: build/sim --matrix >tests/sim/matrix.txt
# limit: 180
set -u
sim=${HV_BUILD:-build}/sim
[ -x "$sim" ] || { echo "bulk: $sim is not built"; exit 77; }
want=${HV_SRC:-.}/tests/sim/matrix.txt
got=$(mktemp) || exit 99
trap 'rm -f "$got"' EXIT INT TERM
rc=0
"$sim" --matrix >"$got" || { echo "bulk: a stall"; rc=1; }
cat "$got"
if cmp -s "$want" "$got"; then
	echo "exactly as in matrix.txt"
else
	# name (30 columns), octets, us, kbit/s
	awk 'FNR == 1 { next }
	{ name = substr($0, 1, 30); split(substr($0, 31), f, " ") }
	NR == FNR { want[name] = f[3]; n++; next }
	{ got[name] = f[3] }
	END {
		for (name in want) {
			if (!(name in got)) { printf "%s is missing\n", name; bad = 1; continue }
			d = got[name] / want[name]
			if (d != 1) printf "%s %d kbit/s, was %d\n", name, got[name], want[name]
			if (d < 0.9 || d > 1.1) bad = 1
		}
		exit bad || n == 0
	}' "$want" "$got" || { echo "bulk: throughput has changed by more than a tenth"; rc=1; }
fi
"$sim" --stalls 1-100 || { echo "bulk: a stall"; rc=1; }
"$sim" --fairness || { echo "bulk: not fair"; rc=1; }
exit $rc
