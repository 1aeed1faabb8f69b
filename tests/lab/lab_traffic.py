#!/usr/bin/env python3
"""Kernel traffic that knows what it lost. Part of lab_kernel.sh.

udp-recv PORT               count numbered datagrams until the sender's last one, or 3 s of silence; print one line
udp-send ADDR PORT RATE     numbered datagrams at RATE a second, then a last one that says how many there were
tcp-recv PORT               take one connection; print octets and SHA-256 of what arrived
tcp-send ADDR PORT          send pseudo-random octets; print octets and SHA-256
frames DEV PORT COUNT       of that many IPv4 frames to PORT that DEV receives: how many have a wrong checksum, how long the longest is

Receivers print READY when they listen, senders when traffic flows; senders stop when their standard input ends, or after a minute.
"""
import hashlib
import random
import select
import socket
import struct
import sys
import time

SO_RCVBUFFORCE = 33
LAST = 1 << 63


def until_told():
    """True while we shall go on."""
    end = time.monotonic() + 60
    while time.monotonic() < end and not (select.select([sys.stdin], [], [], 0)[0] and not sys.stdin.buffer.read1(1)):
        yield True


def family(addr):
    return socket.AF_INET6 if ':' in addr else socket.AF_INET


def udp_recv(port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    s.bind(('::', port))
    print('READY', flush=True)
    s.settimeout(30)
    seen, dup, total = set(), 0, None
    while total is None:
        try:
            n, = struct.unpack_from('<Q', s.recv(2048))
        except socket.timeout:
            break
        s.settimeout(3)
        if n & LAST:
            total = n ^ LAST
        elif n in seen:
            dup += 1
        else:
            seen.add(n)
    # stragglers
    s.settimeout(0.2)
    try:
        while True:
            n, = struct.unpack_from('<Q', s.recv(2048))
            if not n & LAST:
                dup += n in seen
                seen.add(n)
    except socket.timeout:
        pass
    print('sent %s received %d lost %s duplicated %d' % (total, len(seen), 'unknown' if total is None else total - len(seen), dup))


def udp_send(addr, port, rate):
    s = socket.socket(family(addr), socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, 32, 16 << 20)       # SO_SNDBUFFORCE
    s.connect((addr, port))
    start, n, errors = time.monotonic(), 0, 0
    for _ in until_told():
        # A delayed sender catches up, but in small bursts: a busy CPU's input queue holds 1000 packets and drops the rest.
        due = min(int((time.monotonic() - start) * rate), n + 100)
        while n < due:
            if n == 100:
                print('READY', flush=True)
            try:
                s.send(struct.pack('<Q24x', n))
            except OSError:
                errors += 1
            n += 1
        time.sleep(0.0005)
    for _ in range(3):
        s.send(struct.pack('<Q24x', n | LAST))
        time.sleep(0.05)
    print('sent %d errors %d' % (n, errors))


def tcp_recv(port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('::', port))
    s.listen()
    s.settimeout(30)
    print('READY', flush=True)
    c, _ = s.accept()
    c.settimeout(30)
    n, h = 0, hashlib.sha256()
    while data := c.recv(1 << 20):
        n += len(data)
        h.update(data)
    print(n, h.hexdigest())


def tcp_send(addr, port):
    s = socket.create_connection((addr, port), timeout=30)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)     # few segments in flight, for the same reason
    rnd, n, h = random.Random(1), 0, hashlib.sha256()
    block = rnd.randbytes(1 << 20)
    for _ in until_told():
        # another start each time, so that a lost or doubled piece changes the sum whatever its length
        o = rnd.randrange(1 << 19)
        data = block[o:o + rnd.randrange(1, 1 << 17)]
        s.sendall(data)
        if n == 0:
            print('READY', flush=True)
        n += len(data)
        h.update(data)
    s.shutdown(socket.SHUT_WR)
    s.settimeout(30)
    s.recv(1)
    print(n, h.hexdigest())


def checksum_good(ip, l4):
    pseudo = ip[12:20] + bytes([0, ip[9]]) + struct.pack('>H', len(l4))
    data = pseudo + l4 + bytes(len(l4) % 2)
    total = sum(struct.unpack('>%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total == 0xffff


def frames(dev, port, count):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    s.bind((dev, 0))
    s.settimeout(20)
    print('READY', flush=True)
    seen = bad = longest = 0
    try:
        while seen < count:
            f, where = s.recvfrom(70000)
            if where[2] == socket.PACKET_OUTGOING or f[12:14] != b'\x08\x00' or f[23] not in (6, 17):
                continue
            ip = f[14:14 + struct.unpack_from('>H', f, 16)[0]]
            l4 = ip[(ip[0] & 15) * 4:]
            if struct.unpack_from('>H', l4, 2)[0] != port:
                continue
            seen += 1
            bad += not checksum_good(ip, l4)
            longest = max(longest, len(f))
    except socket.timeout:
        pass
    print('seen %d bad %d longest %d' % (seen, bad, longest))


def main():
    what, args = sys.argv[1], sys.argv[2:]
    if what == 'udp-recv':
        udp_recv(int(args[0]))
    elif what == 'udp-send':
        udp_send(args[0], int(args[1]), int(args[2]))
    elif what == 'tcp-recv':
        tcp_recv(int(args[0]))
    elif what == 'tcp-send':
        tcp_send(args[0], int(args[1]))
    elif what == 'frames':
        frames(args[0], int(args[1]), int(args[2]))
    else:
        sys.exit(__doc__)


main()
