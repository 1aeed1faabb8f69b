#!/bin/bash
# lab_kernel.sh - hvaccel-lab is what it says, proved with the kernel's own traffic: both paths carry it, moves lose nothing, a surprise
# does, eth0 is the VF's master, Azure's exceptions stay synthetic, nothing is left behind.
#
# LAB names hvaccel-lab (default: the one below $HV_BUILD or the directory we are run in, else that in PATH). Exit status 77: it cannot
# be run here.
set -u
lab=${LAB:-}
[ "$lab" ] || [ -z "${HV_BUILD:-}" ] || lab=$HV_BUILD/tools/hvaccel-lab
[ "$lab" ] || { [ -x tools/hvaccel-lab ] && lab=$PWD/tools/hvaccel-lab; } || lab=$(command -v hvaccel-lab) || lab=
here=$(cd "$(dirname "$0")" && pwd)
name=k$$ name2=j$$
failed=0 checks=0

skip() { echo "SKIP: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root"
[ -x "$lab" ] || skip "hvaccel-lab is not built: make tools/hvaccel-lab tools/hvaccel-lab-dp, or set LAB"
command -v python3 >/dev/null || skip "python3 not found"
command -v ip >/dev/null || skip "ip not found (iproute2)"
tmp=$(mktemp -d) || exit 1

L() { "$lab" --name "$name" "$@"; }
finish() {
	local rc=$?
	L down
	"$lab" --name "$name2" down
	rm -rf "$tmp"
	exit $rc
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

ok() { # DESCRIPTION COMMAND...
	local what=$1
	shift
	checks=$((checks + 1))
	if "$@" >"$tmp/out" 2>&1; then
		echo "ok: $what"
	else
		echo "FAILED: $what: $*"
		sed 's/^/    /' "$tmp/out"
		failed=$((failed + 1))
	fi
}
not() { ! "$@"; }
stat() { L exec host cat "/sys/class/net/$1/statistics/$2"; }
pings() { L exec "$1" ping -q -c 3 -i 0.01 -W 2 "$2"; }
wait_ready() { # FILE
	local i
	for ((i = 0; i < 1500; i++)); do grep -q READY "$1" && return 0; sleep 0.01; done
	return 1
}

# Datagrams both ways at 10,000 a second and a stream each way, from before COMMAND until after it. Results in $tmp/{udp,tcp}-{vm,peer},
# those of the senders in s-*. The senders stop when the pipe on their standard input is closed.
traffic() { # COMMAND...
	local pids=() p rc
	for p in vm peer; do
		L exec $p python3 "$here/lab_traffic.py" udp-recv 5001 >"$tmp/udp-$p" 2>&1 & pids+=($!)
		L exec $p python3 "$here/lab_traffic.py" tcp-recv 5002 >"$tmp/tcp-$p" 2>&1 & pids+=($!)
	done
	for p in udp-vm tcp-vm udp-peer tcp-peer; do wait_ready "$tmp/$p" || return 1; done
	rm -f "$tmp/go"
	mkfifo "$tmp/go"
	L exec vm python3 "$here/lab_traffic.py" udp-send fd00::1 5001 10000 <"$tmp/go" >"$tmp/s-udp-peer" 2>&1 & pids+=($!)
	L exec peer python3 "$here/lab_traffic.py" udp-send 10.77.0.2 5001 10000 <"$tmp/go" >"$tmp/s-udp-vm" 2>&1 & pids+=($!)
	L exec vm python3 "$here/lab_traffic.py" tcp-send 10.77.0.1 5002 <"$tmp/go" >"$tmp/s-tcp-peer" 2>&1 & pids+=($!)
	L exec peer python3 "$here/lab_traffic.py" tcp-send fd00::2 5002 <"$tmp/go" >"$tmp/s-tcp-vm" 2>&1 & pids+=($!)
	exec 8>"$tmp/go"
	for p in udp-vm tcp-vm udp-peer tcp-peer; do wait_ready "$tmp/s-$p" || { exec 8>&-; return 1; }; done
	"$@" 8>&-
	rc=$?
	sleep 0.2
	exec 8>&-
	wait "${pids[@]}"
	return $rc
}
udp_all() { cat "$tmp/udp-$1" "$tmp/s-udp-$1"; grep -q 'sent [1-9][0-9]* .* lost 0 duplicated 0' "$tmp/udp-$1" && grep -q 'errors 0' "$tmp/s-udp-$1"; }
udp_lost() { cat "$tmp/udp-$1"; grep -q 'lost [1-9]' "$tmp/udp-$1"; }
tcp_same() {
	cat "$tmp/tcp-$1" "$tmp/s-tcp-$1"
	[ "$(cat "$tmp/tcp-$1")" = "$(cat "$tmp/s-tcp-$1")" ] && grep -q '^[1-9]' "$tmp/s-tcp-$1"
}
cycles() {
	local i
	for i in 1 2 3 4 5; do
		L vf-remove || return 1
		sleep 0.1
		L vf-add || return 1
		sleep 0.1
	done
}

# A stream towards WHERE while its DEV is watched. softvf takes frames as they are: none may be incomplete or longer than the MTU.
frames() { # WHERE DEV ADDRESS OTHER
	local pids=()
	L exec "$1" python3 "$here/lab_traffic.py" frames "$2" 5003 2000 >"$tmp/frames" 2>&1 & pids+=($!)
	L exec "$1" python3 "$here/lab_traffic.py" tcp-recv 5003 >"$tmp/recv" 2>&1 & pids+=($!)
	wait_ready "$tmp/frames" && wait_ready "$tmp/recv" || return 1
	L exec "$4" python3 "$here/lab_traffic.py" tcp-send "$3" 5003 < <(while kill -0 "${pids[0]}" 2>/dev/null; do sleep 0.05; done) >"$tmp/send" 2>&1
	wait "${pids[@]}"
	cat "$tmp/frames"
	grep -q '^seen 2000 bad 0 longest 15[0-9][0-9]$' "$tmp/frames"
}

refused() { # TEXT ARGUMENTS...: one line, exit status 2
	local text=$1
	shift
	"$lab" "$@" >"$tmp/o" 2>"$tmp/e"
	local rc=$?
	cat "$tmp/e"
	[ $rc = 2 ] && [ "$(wc -l <"$tmp/e")" = 1 ] && grep -qF -- "$text" "$tmp/e" && [ ! -s "$tmp/o" ]
}

ok "--help" "$lab" --help
ok "unknown command refused" refused "unknown command 'upp'" upp
ok "unknown option refused" refused "unknown option '--frob'" up --frob
ok "option of another command refused" refused "--surprise belongs to vf-remove" up --surprise 3
ok "number out of range refused" refused "--mtu wants a number" up --mtu 99999
ok "bad name refused" refused "is no name" --name a/b up
ok "exec without command refused" refused "wants a command" exec vm
ok "status of no lab fails" not L status
ok "down of no lab succeeds" L down

for mode in master tc; do
	echo "== mode $mode"
	ok "up" L up --mode $mode
	ok "up again" L up --mode $mode
	ok "status" L status
	if [ $mode = master ]; then
		ok "eth0 is the master of vf0" eval 'L exec vm ip link show vf0 | grep -q "master eth0"'
	else
		ok "vf0 has no master" eval '! L exec vm ip link show vf0 | grep -q "master"'
	fi
	ok "vf0 and eth0 have one MAC" eval '[ "$(L exec vm cat /sys/class/net/vf0/address)" = "$(L exec vm cat /sys/class/net/eth0/address)" ]'
	ok "vf0 has no address" eval '[ -z "$(L exec vm ip -o addr show dev vf0)" ]'

	vf=$(stat hvf rx_packets) syn=$(stat hsyn rx_packets) vft=$(stat hvf tx_packets) synt=$(stat hsyn tx_packets)
	ok "IPv4 from vm" pings vm 10.77.0.1
	ok "IPv6 from peer" pings peer fd00::2
	ok "it left through the VF" [ "$(stat hvf rx_packets)" -ge $((vf + 6)) ]
	ok "it came through the VF" [ "$(stat hvf tx_packets)" -ge $((vft + 6)) ]
	ok "nothing left by the synthetic NIC" [ "$(stat hsyn rx_packets)" = "$syn" ]
	ok "nothing came by the synthetic NIC" [ "$(stat hsyn tx_packets)" = "$synt" ]

	index=$(L exec vm cat /sys/class/net/vf0/ifindex)
	ok "vf-remove" L vf-remove
	ok "vf-remove again" L vf-remove
	ok "vf0 is gone" eval '! L exec vm ip link show vf0'
	ok "no switch to a VF that is not there" not L switch vf
	ok "IPv4 over the synthetic NIC" pings peer 10.77.0.2
	ok "IPv6 over the synthetic NIC" pings vm fd00::1
	ok "vf-add" L vf-add --delay 5
	ok "vf-add again" L vf-add
	ok "the VF has a new ifindex" [ "$(L exec vm cat /sys/class/net/vf0/ifindex)" -gt "$index" ]
	ok "switch syn" L switch syn
	vf=$(stat hvf rx_packets)
	ok "traffic while the VF idles" pings vm 10.77.0.1
	ok "the VF idled" [ "$(stat hvf rx_packets)" = "$vf" ]
	ok "switch vf" L switch vf

	ok "frames are complete at the VF" frames vm vf0 10.77.0.2 peer
	ok "frames are complete at the peer" frames peer eth0 10.77.0.1 vm
	ok "five removals and returns under traffic" traffic cycles
	for p in vm peer; do
		ok "every datagram to $p arrived once" udp_all $p
		ok "the stream to $p is whole" tcp_same $p
	done
	# The control: the same measurement sees losses when there are some.
	ok "surprise removal under traffic" traffic L vf-remove --surprise 50
	for p in vm peer; do
		ok "datagrams to $p were lost" udp_lost $p
		ok "the stream to $p is whole" tcp_same $p
	done
done

echo "== Azure's exceptions"
ok "up --syn-only" L up --syn-only
ok "neighbours learned" pings peer 10.77.0.2
synt=$(stat hsyn tx_packets) vft=$(stat hvf tx_packets)
L exec peer python3 -c 'import socket; socket.create_connection(("10.77.0.2", 9), 3)' 2>/dev/null
L exec peer python3 -c 'import socket; socket.create_connection(("fd00::2", 9), 3)' 2>/dev/null
ok "SYNs came by the synthetic NIC" [ "$(stat hsyn tx_packets)" -ge $((synt + 2)) ]
L exec vm ip neigh flush dev eth0
synt=$(stat hsyn tx_packets)
L exec peer arping -q -b -c 1 -w 2 -I eth0 10.77.0.2 2>/dev/null || L exec peer ping -q -b -c 1 -W 1 10.77.0.255 >/dev/null 2>&1
ok "broadcast came by the synthetic NIC" [ "$(stat hsyn tx_packets)" -gt "$synt" ]
vft=$(stat hvf tx_packets)
ok "unicast still uses the VF" pings peer 10.77.0.2
ok "the VF carried it" [ "$(stat hvf tx_packets)" -ge $((vft + 3)) ]

echo "== other forms"
ok "up --queues 4 --mtu 9000" L up --queues 4 --mtu 9000
ok "big frames" L exec vm ping -q -M do -s 8900 -c 2 -i 0.01 -W 2 10.77.0.1
ok "up --no-ipv6 --no-vf" L up --no-ipv6 --no-vf
ok "no IPv6 address" eval '[ -z "$(L exec vm ip -6 -o addr show)" ]'
ok "IPv4 without a VF" pings vm 10.77.0.1
ok "a second lab beside the first" "$lab" --name "$name2" up
ok "the first still works" pings vm 10.77.0.1
ok "exec sets SOFTVF_DEVICES in vm" eval '[ "$(unset SOFTVF_DEVICES; L exec vm -- sh -c "echo \$SOFTVF_DEVICES")" = vf0 ]'
ok "exec sets SOFTVF_DEVICES in peer" eval '[ "$(unset SOFTVF_DEVICES; L exec peer -- sh -c "echo \$SOFTVF_DEVICES")" = eth0 ]'
ok "exec keeps what is set" eval '[ "$(SOFTVF_DEVICES=x HVACCEL_VERBS=/y L exec vm -- sh -c "echo \$SOFTVF_DEVICES \$HVACCEL_VERBS")" = "x /y" ]'
ok "exec passes the exit status on" eval 'L exec vm -- sh -c "exit 7"; [ $? = 7 ]'

echo "== nothing is left"
L exec vm sleep 60 & sleeper=$!
for ((i = 0; i < 200; i++)); do [ "$(ip netns pids "hv-$name-vm" 2>/dev/null)" ] && break; sleep 0.01; done
ok "down" L down
wait $sleeper 2>/dev/null
ok "its program was ended" [ $? -gt 128 ]
ok "no namespace is left" eval '! ip netns list | grep -q "^hv-$name-"'
for ms in 005 015 030 045 060 080; do
	timeout -s TERM 0.$ms "$lab" --name "$name" up >/dev/null 2>&1
	# It may have been finished when the signal came: then it must be whole.
	ok "up interrupted after $ms ms leaves nothing or everything" eval '! ip netns list | grep -q "^hv-$name-" || L status'
	L down
done

echo "$checks checks, $failed failed"
[ $failed = 0 ]
