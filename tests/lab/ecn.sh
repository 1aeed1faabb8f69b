#!/bin/bash
# ecn.sh - ECN that the kernels have negotiated goes on when the connection is on the VF, and after it has come back: what the peer gets is
# ECN-capable, marks take cwnd down instead of losses, the stream is what it was. IPv4 and IPv6, both directions.
# limit: 60
set -u
. "$(dirname "$0")/lib_lab.sh"
command -v socat >/dev/null || skip "socat is not installed"
command -v nft >/dev/null || skip "nft is not installed"
lab_start
for w in vm peer; do
	lab exec $w -- sysctl -qw net.ipv4.tcp_ecn=1 || exit 1
done
# One in twenty of what is ECN-capable is marked on its way into the peer, before its TCP sees it.
lab exec peer -- nft -f - <<'NFT' || skip "nft can't mark here"
table netdev marks {
	chain in {
		type filter hook ingress device eth0 priority 0
		ip ecn ect0 numgen inc mod 20 0 ip ecn set ce
		ip6 ecn ect0 numgen inc mod 20 0 ip6 ecn set ce
	}
}
NFT
ext() { # FIGURE: the peer's count of arriving packets by ECN field, both families
	lab exec peer -- awk -v f="$1" '$1 == "IpExt:" { if (!n) { for (i = 2; i <= NF; i++) if ($i == "In" f) n = i } else s += $n }
		FILENAME ~ /snmp6/ && $1 == "Ip6In" f { s += $2 } END { print s + 0 }' /proc/net/netstat /proc/net/snmp6
}
head -c 2M /dev/urandom >"$tmp/file"
want=$(sha256sum <"$tmp/file")
LIMIT=20
meanwhile() { $still || churn 1 0.6; }
one() { transfer "$@" 1 < <(with_pauses <"$tmp/file"); }
from_vm() { # NAME LISTEN ADDRESS
	local ect ce no
	ect=$(ext ECT0Pkts) ce=$(ext CEPkts) no=$(ext NoECTPkts)
	one "$1" "lab exec peer --" "hv vm" peer $2 "$3"
	ect=$(($(ext ECT0Pkts) - ect)) ce=$(($(ext CEPkts) - ce)) no=$(($(ext NoECTPkts) - no))
	echo "   ECT(0) $ect, CE $ce, neither $no"
	check "$1: nearly all of it was ECN-capable" test $((ect + ce)) -gt $((4 * no))
	check "$1: some was marked" test $ce -gt 0
}
still=true
from_vm "from the VM" TCP-LISTEN TCP:10.77.0.1
still=false
from_vm "from the VM, IPv6, moved" TCP6-LISTEN "TCP6:[fd00::1]"
one "to the VM, moved" "hv vm" "lab exec peer --" vm TCP-LISTEN TCP:10.77.0.2
verdict
