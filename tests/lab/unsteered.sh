#!/bin/bash
# unsteered.sh - segments of an accelerated connection that a flow rule can't tell by their ports, so that the VF's queue doesn't get them: with IP options they are input of
# the library's TCP all the same; one that a router has cut sends the connection to the kernel, at the price of one retransmission, and it stays there. Not seen,
# such a connection would stand still until it was idle, again and again.
set -u
. "$(dirname "$0")/lib_lab.sh"
lab_start
n=hv-$HVACCEL_LAB_NAME
cat >"$tmp/server.py" <<'PY'
import socket
ls = socket.create_server(('10.78.0.2', 7000))
print('ready', flush=True)
c = ls.accept()[0]
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
f = c.makefile('rb')
for line in f:  # "o": IP options from now on, "p": none; a number: so many octets, please
    if line[:1] in b'op':
        c.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b'\x01\x01\x01\x00' if line[:1] == b'o' else b'')
    else:
        c.sendall(b'0123456789' * (int(line) // 10))
PY
cat >"$tmp/client.py" <<'PY'
import socket, sys, time
s = socket.create_connection(('10.78.0.2', 7000))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
s.settimeout(40)
def ask(n):
    s.sendall(b'%d\n' % n)
    b = bytearray()
    while len(b) < n:
        r = s.recv(n - len(b))
        assert r, 'end of stream'
        b += r
    assert b == b'0123456789' * (n // 10), 'other octets'
def often():
    for i in range(200):
        ask(10)
        time.sleep(0.001)
often()
if sys.argv[1] == 'options':
    s.sendall(b'o\n')
    often()
    ask(500000)
    s.sendall(b'p\n')
    often()
else:
    print('path', flush=True)
    sys.stdin.readline()
    for i in range(5):
        ask(100000)
        often()
ask(500000)
print('all')
PY
mkfifo "$tmp/go"
ip netns add far && ip link add r0 netns $n-peer type veth peer name f0 netns far || exit 1
ip netns exec $n-peer sysctl -qw net.ipv4.ip_forward=1
ip netns exec far sysctl -qw net.ipv4.ip_no_pmtu_disc=1 # packets that may be cut
printf '%s\n' "addr add 10.78.0.1/24 dev r0" "link set r0 up" | ip -n $n-peer -batch - || exit 1
printf '%s\n' "addr add 10.78.0.2/24 dev f0" "link set f0 up" "link set lo up" "route add default via 10.78.0.1" | ip -n far -batch - || exit 1
ip -n $n-vm route add 10.78.0.0/24 via 10.77.0.1 || exit 1

one() { # options|fragments NAME
	local srv cli i
	rm -f "$tmp"/summary-*
	: >"$tmp/server"
	: >"$tmp/client"
	ip netns exec far timeout 60 python3 "$tmp/server.py" >"$tmp/server" 2>&1 &
	srv=$!
	for ((i = 0; i < 500; i++)); do grep -q ready "$tmp/server" && break; sleep 0.02; done
	hv vm timeout 60 python3 "$tmp/client.py" $1 <"$tmp/go" >"$tmp/client" 2>&1 &
	cli=$!
	exec 8>"$tmp/go"
	if [ $1 = fragments ]; then
		for ((i = 0; i < 500; i++)); do grep -q path "$tmp/client" && break; sleep 0.02; done
		ip -n $n-peer link set eth0 mtu 1000
		echo >&8
	fi
	wait $cli
	check "$2: the client has got all" test $? = 0
	exec 8>&-
	grep -v '^path\|^all' "$tmp/client"
	kill $srv 2>/dev/null
	wait $srv 2>/dev/null
	check "$2: it was on the VF once" test "$(summary vm promotions)" = 1
	check "$2: and never stood still" test "$(summary vm demoted_because.IDLE)" = 0
	check "$2: no resets" no_resets
}
one options "IP options"
check "IP options: it stayed there" test "$(summary vm demoted_because.PROTOCOL)" = 0
one fragments fragments
check "fragments: it is the kernel's now" test "$(summary vm demoted_because.PROTOCOL)" = 1
verdict
