/*
 * capture_flow.c - the capture of promoted connections' packets on eth0, against frames written octet by octet and against the kernel's own TCP.
 *
 * capture_flow PEER_NETNS MODE, run in the lab's vm by capture_flow.sh. Modes:
 *   frames                               single frames: which are captured, in which order, how often
 *   stream known|unknown big|small       TCP streams: whole, and nothing but them; does the kernel know the checksums, are frames longer than the MTU
 *   life                                 privileges, fork, overrun, a device that goes down and comes back
 * Exits 0, 1, or 77 without BPF. One thread on one CPU, so that frames keep their order; it opens its sockets in both namespaces.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/if_ether.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "failover/capture.h"
#include "stack/frame.h"
#include "stack/wire.h"

#define die(...) do { fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); fprintf(stderr, __VA_ARGS__); fputc('\n', stderr); exit(1); } while (0)
#define check(x) do { if (!(x)) die("failed: %s (errno %d)", #x, errno); } while (0)

#define PATIENCE_MS 20000 /* ends a broken test */
#define STREAM (3u << 20)
#define MTU_FRAME 1514

static const uint8_t vm_mac[6] = { 0x00, 0x0d, 0x3a, 0, 0, 2 }, peer_mac[6] = { 0x02, 0, 0, 0, 0, 1 };
static int home_ns, peer_ns, peer_pkt;
static uint8_t big[HV_CAPTURE_FRAME_MAX];

static void enter(int ns) { check(setns(ns, CLONE_NEWNET) == 0); }

static struct hv_tuple tuple(int family, uint16_t lport, uint16_t rport)
{
	struct hv_tuple t = { .family = (uint8_t)family, .proto = IPPROTO_TCP, .lport = htons(lport), .rport = htons(rport) };

	check(inet_pton(family == 4 ? AF_INET : AF_INET6, family == 4 ? "10.77.0.2" : "fd00::2", t.laddr) == 1);
	check(inet_pton(family == 4 ? AF_INET : AF_INET6, family == 4 ? "10.77.0.1" : "fd00::1", t.raddr) == 1);
	return t;
}

static struct hv_tuple reversed(const struct hv_tuple *t)
{
	struct hv_tuple r = *t;

	memcpy(r.laddr, t->raddr, 16);
	memcpy(r.raddr, t->laddr, 16);
	r.lport = t->rport;
	r.rport = t->lport;
	return r;
}

static struct hv_capture *capture(void)
{
	struct hv_capture *c = NULL;
	const char *what = "?";
	int r = hv_capture_open(&c, (int)if_nametoindex("eth0"), &what);

	if (r == -EPERM || r == -ENOSYS) {
		printf("no %s here\n", what);
		exit(77);
	}
	if (r < 0)
		die("open: %d, %s", r, what);
	check(hv_capture_fd(c) >= 64);
	check((fcntl(hv_capture_fd(c), F_GETFD) & FD_CLOEXEC) != 0);
	return c;
}

/* ---- frames ---- */

enum twist { PLAIN, LPORT, RPORT, LADDR, RADDR, VLAN, DATAGRAM, OPTIONS, MISLEADING, MORE, OFFSET, OTHER_MAC, BAD_SUM, SHORT, EXTENSION };

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* A segment from the tuple's remote end to its local one, carrying `id`. */
static size_t frame(uint8_t *f, struct hv_tuple t, enum twist tw, uint32_t id)
{
	uint8_t *p = f + 14, *l4;
	uint32_t al = t.family == 4 ? 4 : 16, seg = 20 + 12;

	memset(f, 0, 200);
	t.lport = (uint16_t)(t.lport ^ (tw == LPORT ? htons(1) : 0));
	t.rport = (uint16_t)(t.rport ^ (tw == RPORT ? htons(1) : 0));
	t.laddr[al - 1] = (uint8_t)(t.laddr[al - 1] ^ (tw == LADDR ? 8 : 0));
	t.raddr[al - 1] = (uint8_t)(t.raddr[al - 1] ^ (tw == RADDR ? 8 : 0));
	memcpy(f, vm_mac, 6);
	f[5] = (uint8_t)(f[5] ^ (tw == OTHER_MAC ? 0x40 : 0));
	memcpy(f + 6, peer_mac, 6);
	if (tw == VLAN) {
		put16(f + 12, ETH_P_8021Q);
		put16(f + 14, 7);
		p += 4;
	}
	put16(p - 2, t.family == 4 ? ETH_P_IP : ETH_P_IPV6);
	uint8_t proto = tw == DATAGRAM ? IPPROTO_UDP : IPPROTO_TCP;
	if (t.family == 4) {
		uint32_t ihl = tw == OPTIONS || tw == MISLEADING ? 24 : 20;
		p[0] = (uint8_t)(0x40 | ihl / 4);
		put16(p + 2, ihl + seg);
		put16(p + 6, tw == MORE ? 0x2000 : tw == OFFSET ? 0x0010 : 0x4000);
		p[8] = 64;
		p[9] = proto;
		memcpy(p + 12, t.raddr, 4);
		memcpy(p + 16, t.laddr, 4);
		if (tw == MISLEADING) { /* where a filter that overlooks options would find the ports */
			memcpy(p + 20, &t.rport, 2);
			memcpy(p + 22, &t.lport, 2);
			t.rport = (uint16_t)(t.rport ^ htons(1));
		} else if (tw == OPTIONS) {
			memset(p + 20, 1, 4);
		}
		uint16_t sum = hv_csum(p, ihl, 0);
		memcpy(p + 10, &sum, 2);
		l4 = p + ihl;
	} else {
		p[0] = 0x60;
		put16(p + 4, seg + (tw == EXTENSION ? 8 : 0));
		p[6] = tw == EXTENSION ? IPPROTO_HOPOPTS : proto;
		p[7] = 64;
		memcpy(p + 8, t.raddr, 16);
		memcpy(p + 24, t.laddr, 16);
		l4 = p + 40;
		if (tw == EXTENSION) {
			memcpy(l4, (uint8_t[]){ proto, 0, 1, 4, 0, 0, 0, 0 }, 8); /* PadN */
			l4 += 8;
		}
	}
	memcpy(l4, &t.rport, 2);
	memcpy(l4 + 2, &t.lport, 2);
	put16(l4 + 4, tw == DATAGRAM ? seg : 0);
	l4[12] = 5 << 4;
	l4[13] = 0x10; /* ACK */
	memcpy(l4 + 20, &id, 4);
	t.proto = proto;
	uint16_t sum = hv_csum(l4, seg, hv_csum_pseudo(&t, false, seg));
	memcpy(l4 + (tw == DATAGRAM ? 6 : 16), &sum, 2);
	if (tw == BAD_SUM)
		l4[17] ^= 0x55;
	return tw == SHORT ? (size_t)(l4 - f) + 2 : (size_t)(l4 - f) + seg;
}

static void send_frame(int fd, const void *f, size_t len) { check(send(fd, f, len, 0) == (ssize_t)len); }

static void from_peer(const struct hv_tuple *t, enum twist tw, uint32_t id)
{
	uint8_t f[200];

	send_frame(peer_pkt, f, frame(f, *t, tw, id));
}

static int packet_socket(void)
{
	struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex("eth0") };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	check(fd >= 0 && bind(fd, (struct sockaddr *)&ll, sizeof ll) == 0);
	return fd;
}

/* The id of the next captured frame, which must be whole. */
static uint32_t next(struct hv_capture *c, bool *good_sum)
{
	bool ok = true;
	struct hv_frame f;
	uint32_t id;

	struct pollfd p = { hv_capture_fd(c), POLLIN, 0 };
	if (poll(&p, 1, PATIENCE_MS) != 1)
		die("a frame that had to be captured wasn't");
	ssize_t n = hv_capture_read(c, big, sizeof big, &ok);
	check(n > 0 && hv_frame_parse(big, (uint32_t)n, &f));
	check(f.l4_len == 32);
	*good_sum = hv_frame_csum_ok(&f);
	/* Complete, from a packet socket: the kernel hasn't looked, or has and wouldn't say ok. */
	check(!ok || *good_sum);
	memcpy(&id, f.l4 + 20, 4);
	return id;
}

static void nothing(struct hv_capture *c)
{
	bool ok;

	check(hv_capture_read(c, big, sizeof big, &ok) == -EAGAIN && !ok);
}

/* What comes before the marker, which is sent last: exactly these. */
static void expect(struct hv_capture *c, const struct hv_tuple *marker, const uint32_t *ids, uint32_t n)
{
	bool good;

	from_peer(marker, PLAIN, 0x0e0d0000);
	for (uint32_t i = 0; i <= n; i++) {
		uint32_t want = i < n ? ids[i] : 0x0e0d0000, got = next(c, &good);
		if (got != want)
			die("captured frame %#x instead of %#x", got, want);
		check(good == ((want >> 16) != BAD_SUM || want == 0x0e0d0000));
	}
	nothing(c);
}

static void frames_of(struct hv_capture *c, int family, const struct hv_tuple *marker)
{
	static const enum twist t4[] = { LPORT, RPORT, LADDR, RADDR, VLAN, DATAGRAM, MISLEADING, OFFSET, OTHER_MAC, SHORT };
	static const enum twist t6[] = { LPORT, RPORT, LADDR, RADDR, VLAN, DATAGRAM, EXTENSION, OTHER_MAC, SHORT };
	const enum twist *tw = family == 4 ? t4 : t6;
	uint32_t n = family == 4 ? sizeof t4 / sizeof t4[0] : sizeof t6 / sizeof t6[0], ids[40], k = 0;
	struct hv_tuple t = tuple(family, 5001, 40001), other = tuple(family, 5002, 40002), back = tuple(family, 5003, 40003), rev = reversed(&back);
	uint8_t f[200];

	from_peer(&t, PLAIN, 1); /* not added yet */
	expect(c, marker, NULL, 0);
	check(hv_capture_add(c, &t) == 0 && hv_capture_add(c, &t) == 0);
	for (uint32_t i = 0; i < n; i++) {
		from_peer(&t, tw[i], 0xbad00000 | tw[i]);
		ids[k] = k + 1;
		from_peer(&t, PLAIN, ids[k++]);
		from_peer(&other, PLAIN, 0xbad00100);
	}
	ids[k] = BAD_SUM << 16 | 1;
	from_peer(&t, BAD_SUM, ids[k++]);
	if (family == 4) {
		ids[k] = k + 1;
		from_peer(&t, OPTIONS, ids[k++]);
	}
	expect(c, marker, ids, k);
	if (family == 4) { /* the first of several fragments: it says whose they are */
		bool ok;
		struct pollfd p = { hv_capture_fd(c), POLLIN, 0 };
		from_peer(&t, MORE, 1);
		check(poll(&p, 1, PATIENCE_MS) == 1);
		check(hv_capture_read(c, big, sizeof big, &ok) == 14 + 20 + 32 && (big[20] & 0x20) != 0 && memcmp(big + 34, &t.rport, 2) == 0);
		nothing(c);
	}

	/* What leaves: with the addresses the other way round, it would match. */
	check(hv_capture_add(c, &rev) == 0);
	int own = packet_socket();
	size_t len = frame(f, rev, PLAIN, 0xbad00200);
	memcpy(f, peer_mac, 6);
	memcpy(f + 6, vm_mac, 6);
	send_frame(own, f, len);
	close(own);
	for (uint8_t got[2048];;) { /* it did leave */
		struct pollfd p = { peer_pkt, POLLIN, 0 };
		check(poll(&p, 1, PATIENCE_MS) == 1);
		ssize_t r = recv(peer_pkt, got, sizeof got, MSG_DONTWAIT);
		if (r == (ssize_t)len && memcmp(got, f, len) == 0)
			break;
	}
	expect(c, marker, NULL, 0);
	check(hv_capture_del(c, &rev) == 0);

	check(hv_capture_add(c, &other) == 0);
	check(hv_capture_del(c, &t) == 0 && hv_capture_del(c, &t) == -ENOENT);
	from_peer(&t, PLAIN, 0xbad00300);
	from_peer(&other, PLAIN, 3);
	expect(c, marker, (uint32_t[]){ 3 }, 1);
	check(hv_capture_del(c, &other) == 0);
}

static void frames(void)
{
	struct hv_capture *c = capture();
	struct hv_tuple m4 = tuple(4, 6000, 41000), m6 = tuple(6, 6000, 41000), bad = m4;

	bad.proto = IPPROTO_UDP;
	check(hv_capture_add(c, &bad) == -EINVAL);
	check(hv_capture_add(c, &m4) == 0 && hv_capture_add(c, &m6) == 0);
	nothing(c);
	frames_of(c, 4, &m6);
	frames_of(c, 6, &m4);
	hv_capture_close(c);
}

/* ---- streams ---- */

struct stream { int from, to; uint32_t sent, got; };

static uint8_t octet(uint32_t i) { return (uint8_t)((i * 2654435761u) >> 24); }

static struct stream connection(int family)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof ss;
	struct stream s = { 0 };
	int small = 128 << 10, l = socket(family == 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct hv_tuple t = tuple(family, 0, 0);

	/* What may be under way at once fits the capture's buffer, however much room the kernel thinks it takes. */
	check(l >= 0 && setsockopt(l, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
	if (family == 4) {
		struct sockaddr_in *in = (void *)&ss;
		in->sin_family = AF_INET;
		memcpy(&in->sin_addr, t.laddr, 4);
	} else {
		struct sockaddr_in6 *in6 = (void *)&ss;
		in6->sin6_family = AF_INET6;
		memcpy(&in6->sin6_addr, t.laddr, 16);
	}
	check(bind(l, (struct sockaddr *)&ss, len) == 0 && listen(l, 1) == 0 && getsockname(l, (struct sockaddr *)&ss, &len) == 0);
	enter(peer_ns);
	s.from = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	enter(home_ns);
	check(s.from >= 0 && connect(s.from, (struct sockaddr *)&ss, len) == 0);
	s.to = accept(l, NULL, NULL);
	check(s.to >= 0 && fcntl(s.from, F_SETFL, O_NONBLOCK) == 0 && fcntl(s.to, F_SETFL, O_NONBLOCK) == 0);
	close(l);
	return s;
}

static uint16_t port_of(int fd, bool remote)
{
	struct sockaddr_in6 sa; /* the port is at the same place in both */
	socklen_t len = sizeof sa;

	check((remote ? getpeername : getsockname)(fd, (struct sockaddr *)&sa, &len) == 0);
	return sa.sin6_port;
}

static bool pump(struct stream *s, uint32_t total)
{
	static uint8_t buf[65536];
	uint32_t n = total - s->sent < sizeof buf ? total - s->sent : sizeof buf;

	for (uint32_t i = 0; i < n; i++)
		buf[i] = octet(s->sent + i);
	ssize_t r = n == 0 ? 0 : send(s->from, buf, n, 0);
	check(r >= 0 || errno == EAGAIN);
	s->sent += r > 0 ? (uint32_t)r : 0;
	while ((r = recv(s->to, buf, sizeof buf, 0)) > 0)
		s->got += (uint32_t)r;
	check(r < 0 && errno == EAGAIN);
	return s->got < total;
}

static void wait_for(const struct stream *s, const struct stream *other, int fd, uint32_t total)
{
	struct pollfd p[] = { { fd, POLLIN, 0 }, { s->to, POLLIN, 0 }, { s->sent < total ? s->from : -1, POLLOUT, 0 }, { other->to, POLLIN, 0 },
		{ other->sent < total ? other->from : -1, POLLOUT, 0 } };

	check(poll(p, sizeof p / sizeof p[0], PATIENCE_MS) > 0);
}

struct seen { uint32_t first_seq, next, frames, known, incomplete, longest, again; bool started; };

static void one(struct seen *s, const struct hv_tuple *t, uint32_t len, bool ok)
{
	struct hv_frame f;

	check(hv_frame_parse(big, len, &f) && hv_tuple_eq(&f.tuple, t) && f.l4_len >= 20);
	uint32_t hdr = (uint32_t)(f.l4[12] >> 4) * 4, n = f.l4_len - hdr, seq = hv_get32(f.l4 + 4);
	bool good = hv_frame_csum_ok(&f);

	check(hdr <= f.l4_len && (f.l4[13] & 0x07) == 0); /* no SYN, FIN, RST in there */
	check(ok || good);
	s->frames++;
	s->known += ok;
	s->incomplete += !good;
	s->longest = len > s->longest ? len : s->longest;
	if (n == 0)
		return;
	if (!s->started)
		s->first_seq = seq;
	s->started = true;
	uint32_t off = seq - s->first_seq;
	check(off <= s->next);
	for (uint32_t i = 0; i < n; i++)
		if (f.l4[hdr + i] != octet(off + i))
			die("octet %u is wrong", off + i);
	if (off < s->next)
		s->again++;
	if (off + n > s->next)
		s->next = off + n;
}

static void stream_of(struct hv_capture *c, int family, bool known, bool large)
{
	struct stream s = connection(family), other = connection(family);
	struct hv_tuple t = tuple(family, ntohs(port_of(s.to, false)), ntohs(port_of(s.to, true)));
	struct hv_capture_counters n0, n;
	struct seen seen = { 0 };
	struct tcp_info ti;
	socklen_t len = sizeof ti;
	bool ok;
	ssize_t r;

	hv_capture_counters(c, &n0);
	check(hv_capture_add(c, &t) == 0);
	for (bool more = true; more;) {
		more = pump(&s, STREAM);
		more = pump(&other, STREAM) || more;
		while ((r = hv_capture_read(c, big, sizeof big, &ok)) > 0)
			one(&seen, &t, (uint32_t)r, ok);
		check(r == -EAGAIN);
		if (more)
			wait_for(&s, &other, hv_capture_fd(c), STREAM);
	}
	/* A packet is captured before TCP has it: all is there. */
	check(seen.next == STREAM);
	check(getsockopt(s.from, IPPROTO_TCP, TCP_INFO, &ti, &len) == 0);
	hv_capture_counters(c, &n);
	printf("IPv%d: %u frames, longest %u, checksum known to be right %u, incomplete %u, twice %u, retransmitted %u\n", family, seen.frames, seen.longest,
		seen.known, seen.incomplete, seen.again, ti.tcpi_total_retrans);
	check(seen.again <= ti.tcpi_total_retrans);
	check(n.frames - n0.frames == seen.frames && n.octets - n0.octets >= STREAM && n.overrun == n0.overrun && n.too_long == n0.too_long);
	check(large ? seen.longest > MTU_FRAME : seen.longest <= MTU_FRAME);
	if (known)
		check(seen.incomplete > 0 && seen.known >= seen.incomplete);
	else
		check(seen.known == 0 && seen.incomplete == 0);

	/* A buffer for MTU frames only. */
	uint32_t refused = 0, small = 0;
	while (pump(&s, 2 * STREAM)) {
		while ((r = hv_capture_read(c, big, MTU_FRAME, &ok)) > 0 || r == -EMSGSIZE) {
			refused += r == -EMSGSIZE;
			small += r > 0;
		}
		check(r == -EAGAIN);
		wait_for(&s, &s, hv_capture_fd(c), 2 * STREAM);
	}
	while ((r = hv_capture_read(c, big, MTU_FRAME, &ok)) != -EAGAIN) {
		refused += r == -EMSGSIZE;
		small += r > 0;
	}
	n0 = n;
	hv_capture_counters(c, &n);
	check(n.too_long - n0.too_long == refused && n.frames - n0.frames == small && (refused > 0) == large);

	check(hv_capture_del(c, &t) == 0);
	while (pump(&s, 3 * STREAM))
		wait_for(&s, &s, -1, 3 * STREAM);
	nothing(c);
	close(s.from), close(s.to), close(other.from), close(other.to);
}

static void streams(bool known, bool large)
{
	struct hv_capture *c = capture();

	stream_of(c, 4, known, large);
	stream_of(c, 6, known, large);
	hv_capture_close(c);
}

/* ---- life ---- */

static void reap(pid_t pid)
{
	int st = -1;

	check(pid > 0 && waitpid(pid, &st, 0) == pid);
	if (!WIFEXITED(st) || WEXITSTATUS(st) != 0)
		die("child: %#x", st);
}

static void ip(const char *cmd)
{
	if (system(cmd) != 0)
		die("%s", cmd);
}

static void life(void)
{
	struct hv_capture *c = NULL;
	struct hv_tuple t = tuple(4, 6000, 41000);
	const char *what = "";
	bool good, ok;

	check(hv_capture_open(&c, 0, NULL) == -EINVAL && hv_capture_open(&c, 99999, &what) == -ENODEV && what[0] != 0 && c == NULL);
	hv_capture_close(NULL);

	pid_t pid = fork();
	if (pid == 0) {
		check(setgid(65534) == 0 && setuid(65534) == 0);
		int r = hv_capture_open(&c, (int)if_nametoindex("eth0"), &what);
		_exit(r == -EPERM && what[0] != 0 && c == NULL ? 0 : 1);
	}
	reap(pid);

	c = capture();
	check(hv_capture_add(c, &t) == 0);
	pid = fork();
	if (pid == 0) {
		hv_capture_child(c);
		check(hv_capture_fd(c) == -1 && hv_capture_read(c, big, sizeof big, &ok) == -EBADF && hv_capture_del(c, &t) == -EBADF);
		hv_capture_close(c);
		_exit(0);
	}
	reap(pid);
	expect(c, &t, NULL, 0);

	/* Nobody reads: what doesn't fit is counted, what did fit is all there, and it goes on afterwards. */
	struct hv_capture_counters n0, n;
	hv_capture_counters(c, &n0);
	for (uint32_t i = 0; i < 20000; i++)
		from_peer(&t, PLAIN, i);
	uint32_t last = 0, read = 0;
	for (ssize_t r; (r = hv_capture_read(c, big, sizeof big, &ok)) > 0; read++) {
		uint32_t id;
		memcpy(&id, big + 14 + 40, 4);
		check(read == 0 || id > last);
		last = id;
	}
	hv_capture_counters(c, &n);
	printf("%u frames of 20000 were read, %u overrun\n", read, (unsigned)(n.overrun - n0.overrun));
	check(read > 100 && n.frames - n0.frames == read && n.overrun > n0.overrun && n.overrun - n0.overrun + read <= 20000);
	expect(c, &t, NULL, 0);

	ip("ip link set eth0 down");
	nothing(c);
	ip("ip link set eth0 up");
	/* The lab's own ports may need a moment. */
	for (int i = 0; i < PATIENCE_MS / 10; i++) {
		from_peer(&t, PLAIN, 7);
		if (poll(&(struct pollfd){ hv_capture_fd(c), POLLIN, 0 }, 1, 10) == 1)
			break;
	}
	check(next(c, &good) == 7 && good);
	hv_capture_close(c);
}

int main(int argc, char **argv)
{
	cpu_set_t cpus, pin;

	if (argc < 3)
		die("usage: capture_flow PEER_NETNS frames|stream known|unknown big|small|life");
	CPU_ZERO(&pin);
	check(sched_getaffinity(0, sizeof cpus, &cpus) == 0);
	for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&pin) == 0; i++)
		if (CPU_ISSET(i, &cpus))
			CPU_SET(i, &pin);
	check(sched_setaffinity(0, sizeof pin, &pin) == 0);
	home_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	peer_ns = open(argv[1], O_RDONLY | O_CLOEXEC);
	check(home_ns >= 0 && peer_ns >= 0);
	enter(peer_ns);
	peer_pkt = packet_socket();
	enter(home_ns);
	if (strcmp(argv[2], "frames") == 0)
		frames();
	else if (strcmp(argv[2], "stream") == 0 && argc == 5)
		streams(strcmp(argv[3], "known") == 0, strcmp(argv[4], "big") == 0);
	else if (strcmp(argv[2], "life") == 0)
		life();
	else
		die("no such mode: %s", argv[2]);
	return 0;
}
