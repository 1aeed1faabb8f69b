#!/bin/bash
# impaired.sh - files through a bad network between the accelerated VM and a kernel peer, the VF going and coming meanwhile: both directions, IPv4
# and IPv6, sha256 compared, no resets. The peer's NIC is a TAP device behind tests/impair/impair-relay; how long it takes is bench/impaired.py's matter.
# limit: 110
set -u
. "$(dirname "$0")/lib_lab.sh"
command -v socat >/dev/null || skip "socat is not installed"
[ -c /dev/net/tun ] || skip "no /dev/net/tun"
impair=$HV_BUILD/tests/impair/impair-relay
[ -x "$impair" ] || skip "impair-relay is not built: $impair"
lab_start
n=hv-$HVACCEL_LAB_NAME
relay=
# The peer's veth goes to the host, where it has no address; what the peer calls eth0 from now on is the relay's other side.
ip -n $n-peer link set eth0 netns $n-host name pout && ip -n $n-host link set pout up || exit 1
network() { # OPTION... of impair-relay: a new network; the peer keeps its addresses
	[ -z "$relay" ] || { kill "$relay"; wait "$relay"; sed -n '$s/^/   /p' "$tmp/relay"; }
	"$impair" --tap=$n-peer:eth0 --link=$n-host:pout "$@" >"$tmp/relay" &
	relay=$!
	local i
	for ((i = 0; i < 200; i++)); do grep -q ready "$tmp/relay" && break; sleep 0.02; done
	printf '%s\n' "link set eth0 address 02:00:00:00:00:01 txqueuelen 10000" "addr add 10.77.0.1/24 dev eth0" "addr add fd00::1/64 dev eth0 nodad" "link set eth0 up" |
		ip -n $n-peer -batch - || exit 1
}

mb=4
[ "${HV_QUICK:-0}" = 0 ] || mb=2
head -c ${mb}M /dev/urandom >"$tmp/file"
want=$(sha256sum <"$tmp/file")
# A connection in the middle of a recovery isn't moved, so the VF is taken at the calm beginning, and calm moments are left later.
meanwhile() {
	kill -USR2 "$relay"
	sleep 0.5
	kill -USR1 "$relay"
	churn 2 0.6
}
LIMIT=40
one() { transfer "$@" 1 < <(with_pauses <"$tmp/file"); }
from_vm() { one "$1, from the VM" "lab exec peer --" "hv vm" peer "$2" "$3"; }
to_vm() { one "$1, to the VM" "hv vm" "lab exec peer --" vm "$2" "$3"; }

network --seed=1 --rate=100 --loss=1 --jitter=1000
from_vm "1 % lost" TCP-LISTEN TCP:10.77.0.1
to_vm "1 % lost, IPv6" TCP6-LISTEN "TCP6:[fd00::2]"
network --seed=2 --rate=100 --loss=2 --burst=3 --reorder=5 --dup=1
from_vm "bursts, reordered, doubled, IPv6" TCP6-LISTEN "TCP6:[fd00::1]"
to_vm "bursts, reordered, doubled" TCP-LISTEN TCP:10.77.0.2
network --seed=3 --rate=100 --reorder=5 --loss=0.1
from_vm "reordered" TCP-LISTEN TCP:10.77.0.1
to_vm "reordered" TCP-LISTEN TCP:10.77.0.2
kill "$relay"
wait "$relay"
sed -n '$s/^/   /p' "$tmp/relay"
verdict
