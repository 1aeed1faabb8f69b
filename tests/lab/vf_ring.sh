#!/bin/bash
# vf_ring.sh - src/vf over softvf in the lab: discovery in every shape of the lab, the ring against the peer's kernel, loss and return, refusals.
# limit: 120
set -u
prog=${1:-${HV_BUILD:-.}/tests/lab/vf_ring}
[ "$(id -u)" = 0 ] || { echo "needs root"; exit 77; }
[ -x "$prog" ] || { echo "$prog is not built"; exit 77; }
command -v hvaccel-lab >/dev/null || { echo "hvaccel-lab is not built"; exit 77; }
export HVACCEL_LAB_NAME=${HVACCEL_LAB_NAME:-vfr$$}
trap 'rc=$?; hvaccel-lab down; exit $rc' EXIT
trap 'exit 1' INT TERM HUP
vm() { hvaccel-lab exec vm -- "$@"; }

hvaccel-lab up --mode tc || exit 1
vm "$prog" discover eth0 pair || { echo "FAILED: discovery by MAC"; exit 1; }
hvaccel-lab exec peer -- "$prog" discover eth0 bare || { echo "FAILED: discovery of a bare NIC"; exit 1; }
hvaccel-lab up || exit 1
vm "$prog" discover eth0 pair || { echo "FAILED: discovery by master"; exit 1; }
vm ip link set vf0 down
vm "$prog" discover eth0 down || { echo "FAILED: discovery of a VF that is down"; exit 1; }
hvaccel-lab vf-remove || exit 1
vm "$prog" discover eth0 none || { echo "FAILED: discovery without a VF"; exit 1; }
hvaccel-lab vf-add || exit 1
vm "$prog" all || { echo "FAILED ($?)"; exit 1; }
vm "$prog" daemon || { echo "FAILED ($?)"; exit 1; }
hvaccel-lab up --mtu 9000 || exit 1
vm "$prog" jumbo || { echo "FAILED ($?)"; exit 1; }
