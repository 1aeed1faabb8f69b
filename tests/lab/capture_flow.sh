#!/bin/bash
# capture_flow.sh - the capture on eth0 against real packets: both forms of the lab, both data paths, with and without checksum offload, GRO.
# limit: 120
set -u
prog=${1:-${HV_BUILD:-.}/tests/lab/capture_flow}
[ "$(id -u)" = 0 ] || { echo "needs root"; exit 77; }
[ -x "$prog" ] || { echo "$prog is not built"; exit 77; }
command -v hvaccel-lab >/dev/null || { echo "hvaccel-lab is not built"; exit 77; }
command -v ethtool >/dev/null || { echo "needs ethtool"; exit 77; }
export HVACCEL_LAB_NAME=${HVACCEL_LAB_NAME:-cap$$}
trap 'rc=$?; hvaccel-lab down; exit $rc' EXIT
trap 'exit 1' INT TERM HUP
peer=/run/netns/hv-$HVACCEL_LAB_NAME-peer
run() { # DESCRIPTION MODE...
	local rc what=$1
	shift
	hvaccel-lab exec vm -- "$prog" "$peer" "$@"
	rc=$?
	[ $rc = 77 ] && { echo "skipped: $what"; exit 77; }
	[ $rc = 0 ] || { echo "FAILED ($rc): $what"; exit 1; }
	echo "ok: $what"
}

for mode in master tc; do
	syn=syn0
	[ $mode = tc ] && syn=eth0
	hvaccel-lab up --mode $mode || exit 1
	hvaccel-lab switch syn || exit 1
	run "$mode, data path synthetic: single packets" frames
	# The lab completes checksums for the VF only: these are as the peer's TCP made them.
	run "$mode, data path synthetic, checksums incomplete: streams" stream known big
	hvaccel-lab exec host -- ethtool -K hsyn tx off >/dev/null || exit 1
	run "$mode, data path synthetic, checksums complete: streams" stream unknown small
	hvaccel-lab exec vm -- ethtool -K $syn gro on || exit 1
	run "$mode, data path synthetic, GRO: streams" stream known big
	hvaccel-lab exec vm -- ethtool -K $syn gro off || exit 1
	hvaccel-lab switch vf || exit 1
	run "$mode, data path VF, through the kernel: single packets" frames
	run "$mode, data path VF, through the kernel: streams" stream unknown small
done
run "life of a capture" life
