#!/bin/sh
# Simulated connections over bad networks, with moves between kernel and VF in the middle; a seed that fails is kept as a capture.
# limit: 180
set -u
sim=${HV_BUILD:-build}/sim
[ -x "$sim" ] || { echo "sim: $sim is not built"; exit 77; }
n=4000
[ "${HV_QUICK:-0}" = 1 ] && n=1000
dir=${TMPDIR:-/tmp}
exec "$sim" --twins --seeds "${SIM_SEEDS:-1-$n}" --pcap-dir "$dir"
