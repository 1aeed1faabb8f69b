#!/bin/bash
# apps_file.sh - a 1 GB file each way through socat under the library, sha256 compared, the VF going and coming meanwhile; then the same between two
# ends that both run under the library.
# limit: 240
set -u
. "$(dirname "$0")/lib_lab.sh"
command -v socat >/dev/null || skip "socat is not installed"
mb=1024 moves=10
[ "${HV_QUICK:-0}" = 0 ] || mb=192 moves=3
lab_start
head -c 16M /dev/urandom >"$tmp/block"
# Every 16 MB block differs: a block lost, doubled or swapped changes the sum.
stream() { local i; for ((i = 0; i < mb / 16; i++)); do printf '%016d' $i; tail -c +17 "$tmp/block"; done; }
want=$(stream | sha256sum)
# Slow enough that every move falls into the transfer.
paced() { python3 -c '
import sys, time
rate = float(sys.argv[1]); t0 = time.monotonic(); n = 0
while True:
    b = sys.stdin.buffer.read(1 << 18)
    if not b: break
    sys.stdout.buffer.write(b); n += len(b)
    d = t0 + n / rate - time.monotonic()
    if d > 0: time.sleep(d)
' "$1"; }
rate=$((mb * 1048576 / (moves * 2)))

meanwhile() { churn $moves 1; }
one() { # NAME RECEIVER SENDER ADDRESS WHERE
	transfer "$1" "$2" "$3" "$5" TCP-LISTEN TCP:$4 2 < <(stream | paced $rate)
}
one "from the VM" "lab exec peer --" "hv vm" 10.77.0.1 peer
one "to the VM" "hv vm" "lab exec peer --" 10.77.0.2 vm
[ "${HV_QUICK:-0}" = 1 ] || one "both ends accelerated" "hv peer" "hv vm" 10.77.0.1 peer
verdict
