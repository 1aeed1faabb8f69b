#!/bin/bash
# path_mtu.sh - an accelerated connection over a router whose next link gets narrower in the middle of the stream. With ICMP the connection goes on without a
# timeout and sends nothing too large any more, and forged ICMP does nothing; where ICMP is lost and only the kernel's route knows, it takes one timeout;
# what the route says at the promotion counts from the first segment on; a router with a new MAC address is found again; a path that needs fragmentation
# is the kernel's. IPv4 and IPv6, below eth0 and on a bare NIC.
# limit: 200
set -u
. "$(dirname "$0")/lib_lab.sh"
export HVACCEL_PROMOTE=1
lab_start
n=hv-$HVACCEL_LAB_NAME

# watch.py DEVICE MAC MTU: what the client with that MAC has sent by here, told at the end of stdin. "late": segments larger than MTU after it had begun to
# repeat, in pieces of that size, what ICMP had refused. A line: ICMP about a segment that has arrived, and about one that was never sent.
cat >"$tmp/watch.py" <<'PY'
import socket, struct, sys, select, time
dev, mac, mtu = sys.argv[1], bytes.fromhex(sys.argv[2].replace(':', '')), int(sys.argv[3])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
s.bind((dev, 0))
def sum16(b):
    n = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    n = (n & 0xffff) + (n >> 16)
    return ~(n + (n >> 16)) & 0xffff
def forge(f, ahead):
    v6 = f[12:14] == b'\x86\xdd'
    ip = 40 if v6 else 20
    l3 = f[14:14 + ip + 8]
    l3 = l3[:ip + 4] + struct.pack('!I', struct.unpack('!I', l3[ip + 4:])[0] + ahead & 0xffffffff)
    src, dst = (l3[24:40], l3[8:24]) if v6 else (l3[16:20], l3[12:16])
    n = 8 + len(l3)
    msg = b'\x02\x00\0\0' + struct.pack('!I', 1290) + l3 if v6 else b'\x03\x04\0\0' + struct.pack('!HH', 0, 700) + l3
    c = sum16((src + dst + struct.pack('!II', n, 58) if v6 else b'') + msg)
    msg = msg[:2] + struct.pack('!H', c) + msg[4:]
    if v6:
        head = b'\x60\0\0\0' + struct.pack('!HBB', n, 58, 64) + src + dst
    else:
        head = struct.pack('!BBHHHBBH', 0x45, 0, 20 + n, 1, 0, 64, 1, 0) + src + dst
        head = head[:10] + struct.pack('!H', sum16(head)) + head[12:]
    s.send(f[6:12] + f[:6] + f[12:14] + head + msg)
print('watching', flush=True)
last = None
icmp = early = late = 0
top, again = None, False
while True:
    r = select.select([s, sys.stdin], [], [])[0]
    if s not in r:
        if not sys.stdin.readline():
            break
        forge(last, -1000)
        forge(last, 1 << 30)
        print('forged', flush=True)
        continue
    f = s.recv(70000)
    v6 = f[12:14] == b'\x86\xdd'
    l4 = f[54:] if v6 else f[14 + (f[14] & 15) * 4:]
    proto = f[20] if v6 else f[23]
    if f[6:12] != mac:
        icmp += (v6 and proto == 58 and l4[0] == 2) or (not v6 and proto == 1 and l4[:2] == b'\x03\x04')
        continue
    if proto != 6:
        continue
    last = f
    size = len(f) - 14 if v6 else struct.unpack('!H', f[16:18])[0]
    seq = struct.unpack('!I', l4[4:8])[0]
    data = size - (len(f) - 14 - len(l4)) - (l4[12] >> 4) * 4
    if data > 0:
        if icmp and top is not None and (seq - top) & 0x80000000 and size == mtu:
            again = True
        if top is None or not (seq + data - top) & 0x80000000:
            top = (seq + data) & 0xffffffff
        if size > mtu:
            late += again
            early += not again
print('icmp', icmp, 'early', early, 'late', late)
PY
cat >"$tmp/server.py" <<'PY'
import hashlib, socket, sys, time
ls = socket.create_server((sys.argv[1], 7000), family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
print('ready', flush=True)
c = ls.accept()[0]
c.settimeout(40)
while (b := c.recv(1)) != b'q':
    for i in range(150 if b == b'p' else 1):
        c.sendall(b)
        time.sleep(0.002 if b == b'p' else 0)
h = hashlib.sha256()
while b := c.recv(1 << 16):
    h.update(b)
print('sum', h.hexdigest())
PY
# Says "path" and waits; then sends; TCP_INFO's idea of the path and of the MSS last.
cat >"$tmp/client.py" <<'PY'
import fcntl, hashlib, random, socket, struct, sys, time
s = socket.create_connection((sys.argv[1], 7000))
s.settimeout(40)
before = sys.argv[2] == 'before'
def echo(n):
    for i in range(n):
        s.sendall(b'x')
        assert s.recv(1) == b'x'
        time.sleep(0.002)
def say(w):
    print(w, flush=True)
    sys.stdin.readline()
def drained():
    while struct.unpack('=i', fcntl.ioctl(s, 0x5411, b'....'))[0]:  # SIOCOUTQ
        time.sleep(0.002)
def info():
    ti = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    v6 = s.family == socket.AF_INET6
    print('pmtu', struct.unpack_from('=I', ti, 60)[0], s.getsockopt(*(socket.IPPROTO_IPV6, 24) if v6 else (socket.IPPROTO_IP, 14)), flush=True)
if before:
    s.sendall(b'p')
    say('path')  # it becomes hot by reading: the kernel sends nothing that would tell its socket about the route
    for i in range(150):
        assert s.recv(1) == b'p'
else:
    echo(150)
    s.sendall(b'q')
h = hashlib.sha256()
def send(seed, n):
    b = random.Random(seed).randbytes(n)
    h.update(b)
    s.sendall(b)
if before:
    info()
    s.sendall(b'q')
else:
    send(1, 1 << 20)
    drained()
    say('path')
send(2, 2 << 20)
drained()
info()
s.shutdown(socket.SHUT_WR)
s.recv(1)
print('sum', h.hexdigest())
PY

# network VM-LIKE ROUTER: a machine "far" behind ROUTER; the other one knows the way.
far() { ip netns exec far "$@"; }
network() {
	client=$1 router=$2
	local a4 a6 w
	[ $router = peer ] && a4=10.77.0.1 a6=fd00::1 || a4=10.77.0.2 a6=fd00::2
	mac=$(lab exec $client -- cat /sys/class/net/eth0/address)
	via4="10.78.0.0/24 via $a4" via6="fd01::/64 via $a6"
	ip netns add far && ip link add r0 netns $n-$router type veth peer name f0 netns far || exit 1
	for w in $n-$router far; do
		ip netns exec $w sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.f0.accept_dad=0 net.ipv6.conf.r0.accept_dad=0 \
			net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 2>/dev/null
	done
	printf '%s\n' "addr add 10.78.0.1/24 dev r0" "addr add fd01::1/64 dev r0 nodad" "link set r0 up" | ip -n $n-$router -batch - || exit 1
	printf '%s\n' "addr add 10.78.0.2/24 dev f0" "addr add fd01::2/64 dev f0 nodad" "link set f0 up" "link set lo up" "route add default via 10.78.0.1" \
		"route add ::/0 via fd01::1" | ip -n far -batch - || exit 1
	printf '%s\n' "route add $via4" "route add $via6" | ip -n $n-$client -batch - || exit 1
}
no_network() {
	printf '%s\n' "route del 10.78.0.0/24" "route del fd01::/64" | ip -n $n-$client -batch -
	ip -n $n-$router link del r0
	ip netns del far
}
said() { # FILE WORD
	local i
	for ((i = 0; i < 1000; i++)); do grep -q "^$2" "$1" && return 0; sleep 0.02; done
	echo "no '$2' in:"; cat "$1"
	return 1
}
mkfifo "$tmp/go" "$tmp/end"
one() { # NAME ADDRESS before|after NARROWER...
	local name=$1 addr=$2 when=$3 srv cli w
	shift 3
	ip -n far link set f0 mtu 1500
	ip -n $n-$router link set r0 mtu 1500
	ip -n $n-$client route flush cache
	ip -n $n-$client -6 route flush cache
	rm -f "$tmp"/summary-*
	for w in server client watch; do : >"$tmp/$w"; done
	far timeout 50 python3 "$tmp/server.py" $addr >"$tmp/server" 2>&1 &
	srv=$!
	lab exec $router -- timeout 50 python3 "$tmp/watch.py" eth0 $mac 1300 <"$tmp/end" >"$tmp/watch" 2>&1 &
	w=$!
	exec 7>"$tmp/end"
	said "$tmp/server" ready && said "$tmp/watch" watching || exit 1
	hv $client timeout 50 python3 "$tmp/client.py" $addr $when <"$tmp/go" >"$tmp/client" 2>&1 &
	cli=$!
	exec 8>"$tmp/go"
	said "$tmp/client" path || exit 1
	"$@" || exit 1
	echo >&8
	wait $cli
	check "$name: the sender ends well" test $? = 0
	wait $srv
	check "$name: what arrived is what was sent" test "$(grep sum "$tmp/client")" = "$(cat "$tmp/server" | grep sum)"
	exec 7>&- 8>&-
	wait $w
	echo "   $(tail -1 "$tmp/watch"); $(grep pmtu "$tmp/client" | tail -1); timeouts $(summary $client tcp.rto)"
	check "$name: on the VF, and no to and fro" test "$(summary $client promotions)" -ge 1 -a "$(summary $client promotions)" -le ${moves:-1}
	check "$name: no resets" no_resets
}
figure() { tail -1 "$tmp/watch" | awk -v k=$1 '{ for (i = 1; i < NF; i += 2) if ($i == k) print $(i + 1) }'; }
narrow_link() {
	echo >&7
	said "$tmp/watch" forged && ip -n $n-$router link set r0 mtu ${1:-1300}
}
# What is too long for the receiver's device is lost without a word.
narrow_silently() { ip -n far link set f0 mtu 1300 && route 1300; }
route() { ip -n $n-$client route change $via4 mtu $1 && ip -n $n-$client -6 route change $via6 mtu $1; }
with_icmp() {
	one "$1" $2 after narrow_link
	check "$1: the link was wide before, and ICMP came" test "$(figure icmp)" -ge 3 -a "$(figure early)" -ge 100
	check "$1: nothing too large once it had begun again" test "$(figure late)" = 0
	check "$1: it knows the path" grep -q "^pmtu 1300 1300" "$tmp/client"
	check "$1: without a timeout worth the name" test "$(summary $client tcp.rto)" -le 2
}
network vm peer
with_icmp "ICMP, IPv4" 10.78.0.2
with_icmp "ICMP, IPv6" fd01::2
for f in "IPv4 10.78.0.2" "IPv6 fd01::2"; do
	one "no ICMP, ${f% *}" ${f#* } after narrow_silently
	check "no ICMP, ${f% *}: the path is the kernel's" grep -q "^pmtu 1300 1300" "$tmp/client"
	check "no ICMP, ${f% *}: one timeout, or one more" test "$(summary $client tcp.rto)" -le 2
	route 0
	one "known before, ${f% *}" ${f#* } before route 1300
	check "known before, ${f% *}: from the beginning" grep -q "^pmtu 1300 1300" "$tmp/client"
	check "known before, ${f% *}: nothing was larger" test "$(figure early)" = 0
	route 0
done
new_mac() {
	ip -n $n-peer link set eth0 address 02:00:00:00:00:77 && ip -n $n-vm neigh replace 10.77.0.1 lladdr 02:00:00:00:00:77 dev eth0 nud reachable
}
one "the router's new MAC" 10.78.0.2 after new_mac
check "the router's new MAC: one timeout, or one more" test "$(summary $client tcp.rto)" -le 2
no_network
network peer vm
with_icmp "a bare NIC, IPv4" 10.78.0.2
moves=2 # again before the kernel knows, at most
one "too narrow" 10.78.0.2 after narrow_link 500
check "too narrow: it is the kernel's now" test "$(summary $client demoted_because.PATH_MTU)" -ge 1
no_network
verdict
