/*
 * kernel.c - the side under test is the kernel of this machine: a TUN device in a network namespace of its own, real time.
 *
 * What the kernel sends is read from a packet socket on the device, for the sake of its time stamps: they say when the segment left, however
 * late this process came to look. The calling process is moved into the namespace for good, so it plays one script and ends.
 */
#include "script.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SLIP 10000 /* us; later than that and the exchange may not be what the script means */
#define LINK_MTU 1500u

struct kernel {
	int tun, pkt, listener, fd;
	uint32_t written, read;
	uint32_t snd_una;
};

static struct kernel *of(struct sc_target *t)
{
	return t->priv;
}

static bool bad(struct sc_target *t, const char *what)
{
	if (t->why[0] == 0)
		snprintf(t->why, sizeof t->why, "%s", what);
	return false;
}

static bool bad_errno(struct sc_target *t, const char *what)
{
	int e = errno;

	if (t->why[0] == 0)
		snprintf(t->why, sizeof t->why, "%s: %s", what, strerror(e));
	return false;
}

static uint64_t kernel_now(struct sc_target *t)
{
	struct timespec ts;

	(void)t;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

/* One segment of the connection that the kernel has sent, if there is one. */
static bool take(struct sc_target *t, struct sc_pkt *p)
{
	static uint8_t buf[70000];
	struct kernel *k = of(t);

	for (;;) {
		struct sockaddr_ll from;
		char ctl[256];
		struct iovec iov = { buf, sizeof buf };
		struct msghdr m = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl,
			.msg_controllen = sizeof ctl };
		ssize_t n = recvmsg(k->pkt, &m, MSG_DONTWAIT);
		uint64_t at = kernel_now(t);

		if (n < 0)
			return false;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c != NULL; c = CMSG_NXTHDR(&m, c)) {
			if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
				struct timespec ts;

				memcpy(&ts, CMSG_DATA(c), sizeof ts);
				at = (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
			}
		}
		if (from.sll_pkttype == PACKET_OUTGOING && sc_decode(&t->c, buf, (uint32_t)n, p)) {
			p->at = at;
			return true;
		}
	}
}

static bool kernel_wait(struct sc_target *t, uint64_t until, struct sc_pkt *p)
{
	static uint8_t sink[70000];
	struct kernel *k = of(t);

	for (;;) {
		struct pollfd pf[2] = { { .fd = k->pkt, .events = POLLIN }, { .fd = k->tun, .events = POLLIN } };
		uint64_t now;
		int64_t left;
		struct timespec ts;

		if (take(t, p))
			return true;
		now = kernel_now(t);
		left = (int64_t)(until - now);
		if (left <= 0) {
			if (left < -SLIP)
				t->slipped = true;
			return false;
		}
		ts.tv_sec = left / 1000000;
		ts.tv_nsec = left % 1000000 * 1000;
		ppoll(pf, 2, &ts, NULL);
		if ((pf[1].revents & POLLIN) != 0)
			while (read(k->tun, sink, sizeof sink) > 0)
				;
	}
}

static bool kernel_inject(struct sc_target *t, const struct sc_pkt *p)
{
	static uint8_t frame[70000];
	uint32_t n = sc_encode(&t->c, frame, p);

	return write(of(t)->tun, frame + 14, n - 14) == (ssize_t)(n - 14) || bad_errno(t, "write to the TUN device");
}

static bool opt(struct sc_target *t, int fd, int level, int name, int val)
{
	return setsockopt(fd, level, name, &val, sizeof val) == 0 || bad_errno(t, "setsockopt");
}

static int make_listener(struct sc_target *t, const struct sc_open *o)
{
	struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = htons(t->c.lport) };
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = htons(t->c.lport) };
	int fd = socket(t->c.v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0) {
		bad_errno(t, "socket");
		return -1;
	}
	if ((o->rcvbuf != 0 && !opt(t, fd, SOL_SOCKET, SO_RCVBUF, (int)o->rcvbuf)) ||
	    (o->sndbuf != 0 && !opt(t, fd, SOL_SOCKET, SO_SNDBUF, (int)o->sndbuf)) ||
	    (o->clamp != 0 && !opt(t, fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, (int)o->clamp)) ||
	    (o->maxseg != 0 && !opt(t, fd, IPPROTO_TCP, TCP_MAXSEG, (int)o->maxseg)))
		return fd;
	if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, o->cc, (socklen_t)strlen(o->cc)) != 0)
		bad_errno(t, "TCP_CONGESTION");
	if ((t->c.v6 ? bind(fd, (struct sockaddr *)&a6, sizeof a6) : bind(fd, (struct sockaddr *)&a4, sizeof a4)) != 0 || listen(fd, 5) != 0)
		bad_errno(t, "listen");
	return fd;
}

static bool kernel_open(struct sc_target *t, const struct sc_open *o)
{
	struct kernel *k = of(t);
	struct sc_conn *c = &t->c;
	struct sc_pkt syn, p;
	uint32_t own;

	k->listener = make_listener(t, o);
	if (t->why[0] != 0)
		return false;
	c->irs = 0xfffff800u; /* wraps soon */
	c->ts = o->ts;
	c->sack = o->sack;
	c->ecn = o->ecn;
	memset(&syn, 0, sizeof syn);
	syn.flags = (uint8_t)(2 | (o->ecn ? 0xc0 : 0));
	syn.mss = o->mss;
	syn.sackok = o->sack;
	syn.wscale = o->wscale;
	syn.wnd = 65535;
	if (!kernel_inject(t, &syn))
		return false;
	if (!kernel_wait(t, kernel_now(t) + 3000000, &p))
		return bad(t, "no SYN/ACK");
	if ((p.flags & ~0x40) != 0x12 || p.ack != 1 || p.has_ts != o->ts || p.sackok != o->sack || (p.wscale >= 0) != (o->wscale >= 0) ||
	    ((p.flags & 0x40) != 0) != o->ecn)
		return bad(t, "the SYN/ACK isn't as the SYN asks for");
	/* RFC 9293 3.7.1, MUST-14 and MUST-67: what our link takes, less the headers, whatever the peer's says */
	own = LINK_MTU - (c->v6 ? 60u : 40u);
	if (p.mss != (o->maxseg != 0 && o->maxseg < own ? o->maxseg : own))
		return bad(t, "the MSS option of the SYN/ACK isn't that of the link");
	c->snd_ws = o->wscale >= 0 ? (unsigned)o->wscale : 0;
	c->rcv_ws = p.wscale >= 0 ? (unsigned)p.wscale : 0;
	if (kernel_wait(t, p.at + o->rtt_ms * 1000u, &p))
		return bad(t, "more than a SYN/ACK");
	memset(&syn, 0, sizeof syn);
	syn.flags = 16;
	syn.seq = syn.ack = 1;
	syn.wnd = o->wnd;
	syn.tsval = 1000 + o->rtt_ms;
	if (!kernel_inject(t, &syn))
		return false;
	for (unsigned i = 0; i < 1000; i++) {
		k->fd = accept4(k->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (k->fd >= 0)
			break;
		usleep(1000);
	}
	k->written = k->read = 1;
	return k->fd >= 0 || bad_errno(t, "accept");
}

static int64_t kernel_write(struct sc_target *t, uint32_t len, bool more)
{
	struct kernel *k = of(t);
	uint8_t *data = malloc(len + 1u);
	ssize_t n;

	if (data == NULL)
		abort();
	for (uint32_t i = 0; i < len; i++)
		data[i] = sc_octet(false, k->written + i);
	n = send(k->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT | (more ? MSG_MORE : 0));
	if (n < 0)
		n = -errno;
	else
		k->written += (uint32_t)n;
	free(data);
	return n;
}

static int64_t kernel_read(struct sc_target *t, uint32_t len)
{
	struct kernel *k = of(t);
	uint8_t *data = malloc(len + 1u);
	ssize_t n;

	if (data == NULL)
		abort();
	n = recv(k->fd, data, len, MSG_DONTWAIT);
	if (n < 0) {
		n = -errno;
	} else {
		for (ssize_t i = 0; i < n; i++)
			if (data[i] != sc_octet(true, k->read + (uint32_t)i))
				bad(t, "an octet that was read is wrong");
		k->read += (uint32_t)n;
	}
	free(data);
	return n;
}

static int64_t kernel_shutdown(struct sc_target *t)
{
	return shutdown(of(t)->fd, SHUT_WR) == 0 ? 0 : -errno;
}

static int64_t kernel_close(struct sc_target *t)
{
	struct kernel *k = of(t);
	int rc = close(k->fd);

	k->fd = -1;
	return rc == 0 ? 0 : -errno;
}

static int64_t kernel_setopt(struct sc_target *t, const char *name, uint32_t val)
{
	static const struct { const char *name; int level, o; } known[] = { { "nodelay", IPPROTO_TCP, TCP_NODELAY },
		{ "cork", IPPROTO_TCP, TCP_CORK }, { "quickack", IPPROTO_TCP, TCP_QUICKACK }, { "keepalive", SOL_SOCKET, SO_KEEPALIVE },
		{ "keepidle", IPPROTO_TCP, TCP_KEEPIDLE }, { "keepintvl", IPPROTO_TCP, TCP_KEEPINTVL }, { "keepcnt", IPPROTO_TCP, TCP_KEEPCNT },
		{ "user_timeout", IPPROTO_TCP, TCP_USER_TIMEOUT }, { "notsent_lowat", IPPROTO_TCP, TCP_NOTSENT_LOWAT },
		{ "window_clamp", IPPROTO_TCP, TCP_WINDOW_CLAMP }, { "rcvbuf", SOL_SOCKET, SO_RCVBUF }, { "sndbuf", SOL_SOCKET, SO_SNDBUF },
		{ "maxseg", IPPROTO_TCP, TCP_MAXSEG } };
	int v = (int)val;

	if (strcmp(name, "congestion") == 0) {
		const char *cc = val != 0 ? "reno" : "cubic";

		return setsockopt(of(t)->fd, IPPROTO_TCP, TCP_CONGESTION, cc, (socklen_t)strlen(cc)) == 0 ? 0 : -errno;
	}
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strcmp(name, known[i].name) == 0)
			return setsockopt(of(t)->fd, known[i].level, known[i].o, &v, sizeof v) == 0 ? 0 : -errno;
	bad(t, "no such option");
	return -1;
}

static bool kernel_info(struct sc_target *t, struct sc_figures *f)
{
	struct tcp_info i;
	socklen_t n = sizeof i;

	memset(&i, 0, sizeof i);
	if (getsockopt(of(t)->fd, IPPROTO_TCP, TCP_INFO, &i, &n) != 0)
		return false;
	*f = (struct sc_figures){ .cwnd = i.tcpi_snd_cwnd, .ssthresh = i.tcpi_snd_ssthresh, .mss = i.tcpi_snd_mss, .ca = i.tcpi_ca_state,
		.unacked = i.tcpi_unacked, .sacked = i.tcpi_sacked, .lost = i.tcpi_lost, .retrans = i.tcpi_retrans,
		.total_retrans = i.tcpi_total_retrans, .rtt_ms = (i.tcpi_rtt + 500) / 1000, .rto_ms = i.tcpi_rto / 1000,
		.snd_wnd = i.tcpi_snd_wnd, .notsent = i.tcpi_notsent_bytes };
	return true;
}

static unsigned kernel_poll(struct sc_target *t)
{
	struct pollfd pf = { .fd = of(t)->fd, .events = POLLIN | POLLOUT | POLLRDHUP };

	if (poll(&pf, 1, 0) <= 0)
		return 0;
	return ((pf.revents & POLLIN) != 0 ? SC_IN_READY : 0) | ((pf.revents & POLLOUT) != 0 ? SC_OUT_READY : 0) |
	       ((pf.revents & (POLLRDHUP | POLLHUP)) != 0 ? SC_HUP : 0);
}

static int64_t kernel_inq(struct sc_target *t)
{
	int v = 0;

	return ioctl(of(t)->fd, SIOCINQ, &v) == 0 ? v : -errno;
}

static int64_t kernel_outq(struct sc_target *t)
{
	int v = 0;

	return ioctl(of(t)->fd, SIOCOUTQ, &v) == 0 ? v : -errno;
}

static uint32_t sum16(const uint8_t *p, uint32_t n, uint32_t s)
{
	for (uint32_t i = 0; i < n; i += 2)
		s += (uint32_t)p[i] << 8 | (i + 1 < n ? p[i + 1] : 0u);
	while (s >> 16 != 0)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* ICMP that quotes the oldest octet in flight: the path takes no more than mtu. */
static bool kernel_pmtu(struct sc_target *t, uint32_t mtu)
{
	static const uint8_t a4[2][4] = { { 192, 0, 2, 1 }, { 192, 0, 2, 2 } };
	uint8_t b[128] = { 0 }, a6[2][16], *icmp, *in;
	uint32_t seq = htonl(t->c.iss + t->c.last_ack), s, n;
	uint16_t port[2] = { htons(t->c.lport), htons(t->c.rport) };

	mtu += t->c.v6 ? 20 : 0;
	if (!t->c.v6) {
		const uint8_t ip[12] = { 0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0 }, quoted[12] = { 0x45, 0, 5, 220, 0, 1, 0x40, 0, 64, 6, 0, 0 };

		n = 56;
		memcpy(b, ip, 12);
		memcpy(b + 12, a4[1], 4);
		memcpy(b + 16, a4[0], 4);
		icmp = b + 20;
		icmp[0] = 3;
		icmp[1] = 4;
		icmp[6] = (uint8_t)(mtu >> 8);
		icmp[7] = (uint8_t)mtu;
		in = icmp + 8;
		memcpy(in, quoted, 12);
		memcpy(in + 12, a4[0], 4);
		memcpy(in + 16, a4[1], 4);
		in += 20;
		s = ~sum16(b, 20, 0);
		b[10] = (uint8_t)(s >> 8);
		b[11] = (uint8_t)s;
		s = 0;
	} else {
		n = 40 + 8 + 40 + 8;
		inet_pton(AF_INET6, "2001:db8::1", a6[0]);
		inet_pton(AF_INET6, "2001:db8::2", a6[1]);
		b[0] = 0x60;
		b[5] = 56;
		b[6] = 58;
		b[7] = 64;
		memcpy(b + 8, a6[1], 16);
		memcpy(b + 24, a6[0], 16);
		icmp = b + 40;
		icmp[0] = 2;
		icmp[6] = (uint8_t)(mtu >> 8);
		icmp[7] = (uint8_t)mtu;
		in = icmp + 8;
		in[0] = 0x60;
		in[4] = 5;
		in[5] = 180;
		in[6] = 6;
		in[7] = 64;
		memcpy(in + 8, a6[0], 16);
		memcpy(in + 24, a6[1], 16);
		in += 40;
		s = sum16(b + 8, 32, 56 + 58);
	}
	memcpy(in, port, 4);
	memcpy(in + 4, &seq, 4);
	s = ~sum16(icmp, n - (uint32_t)(icmp - b), s);
	icmp[2] = (uint8_t)(s >> 8);
	icmp[3] = (uint8_t)s;
	return write(of(t)->tun, b, n) == (ssize_t)n || bad_errno(t, "write to the TUN device");
}

static bool kernel_nothing(struct sc_target *t)
{
	(void)t;
	return true;
}

static bool kernel_demotes(struct sc_target *t, const struct sc_event *e)
{
	(void)e;
	return kernel_nothing(t);
}

static void kernel_end(struct sc_target *t)
{
	struct kernel *k = of(t);
	int fds[4] = { k->fd, k->listener, k->pkt, k->tun };

	for (unsigned i = 0; i < 4; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(k);
	t->priv = NULL;
}

static bool put(struct sc_target *t, const char *name, const char *val)
{
	char path[128], v[64];
	int fd;
	size_t n;
	bool ok;

	snprintf(path, sizeof path, "/proc/sys/net/%s%s", strchr(name, '/') != NULL ? "" : "ipv4/", name);
	snprintf(v, sizeof v, "%s", val);
	n = strlen(v);
	for (size_t i = 0; i < n; i++)
		if (v[i] == ',')
			v[i] = ' ';
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok = fd >= 0 && write(fd, v, n) == (ssize_t)n;
	if (!ok) {
		snprintf(t->why, sizeof t->why, "%s=%s: %s", path, val, strerror(errno));
		t->why[sizeof t->why - 1] = 0;
	}
	if (fd >= 0)
		close(fd);
	return ok;
}

/* The namespace doesn't inherit what the machine's administrator likes. SACKs aren't compressed: their number shall not depend on time. */
static const struct sc_sysctl defaults[] = { { "tcp_no_metrics_save", "1" }, { "tcp_ecn", "2" },
	{ "tcp_sack", "1" }, { "tcp_dsack", "1" }, { "tcp_timestamps", "1" }, { "tcp_window_scaling", "1" }, { "tcp_recovery", "1" },
	{ "tcp_early_retrans", "3" }, { "tcp_frto", "2" }, { "tcp_slow_start_after_idle", "1" }, { "tcp_reordering", "3" },
	{ "tcp_comp_sack_nr", "0" }, { "tcp_rmem", "4096,131072,6291456" }, { "tcp_wmem", "4096,4194304,4194304" },
	{ "tcp_moderate_rcvbuf", "1" }, { "tcp_invalid_ratelimit", "500" }, { "tcp_retries2", "15" }, { "tcp_mtu_probing", "0" },
	{ "tcp_fin_timeout", "60" }, { "tcp_shrink_window", "0" }, { "tcp_thin_linear_timeouts", "0" } };

/* An IPv6 address is assigned in the background: wait for its local route, or the SYN finds nobody. */
static bool v6_ready(struct sc_target *t)
{
	char line[256];

	for (unsigned i = 0; i < 1000; i++) {
		FILE *f = fopen("/proc/net/ipv6_route", "r");
		bool found = false;

		while (f != NULL && !found && fgets(line, sizeof line, f) != NULL)
			found = strncmp(line, "20010db8000000000000000000000001 80 ", 36) == 0;
		if (f != NULL)
			fclose(f);
		if (found)
			return true;
		usleep(2000);
	}
	return bad(t, "the IPv6 address does not appear");
}

static bool make_network(struct sc_target *t, const struct sc_script *s)
{
	struct kernel *k = of(t);
	struct ifreq ifr;
	struct sockaddr_ll ll;
	int on = 1, big = 4 << 20;
	FILE *ip;

	if (unshare(CLONE_NEWNET) != 0)
		return bad_errno(t, "no network namespace");
	k->tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (k->tun < 0)
		return bad_errno(t, "/dev/net/tun");
	memset(&ifr, 0, sizeof ifr);
	snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "tun0");
	ifr.ifr_flags = IFF_TUN | IFF_NO_PI;
	if (ioctl(k->tun, TUNSETIFF, &ifr) != 0)
		return bad_errno(t, "TUNSETIFF");
	for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
		if (!put(t, defaults[i].name, defaults[i].val))
			return false;
	for (unsigned i = 0; i < s->n_sysctl; i++)
		if (!put(t, s->sysctl[i].name, s->sysctl[i].val))
			return false;
	if (!put(t, "ipv6/conf/tun0/router_solicitations", "0"))
		t->why[0] = 0;
	ip = popen("ip -batch -", "w");
	if (ip == NULL)
		return bad_errno(t, "ip");
	fprintf(ip, "link set lo up\nlink set tun0 up txqueuelen 2000 mtu %u\naddr add 192.0.2.1/24 dev tun0\n", LINK_MTU);
	if (t->c.v6)
		fputs("addr add 2001:db8::1/64 dev tun0 nodad\n", ip);
	if (pclose(ip) != 0)
		return bad(t, "ip(8) failed");
	if (t->c.v6 && !v6_ready(t))
		return false;
	k->pkt = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
	memset(&ll, 0, sizeof ll);
	ll.sll_family = AF_PACKET;
	ll.sll_protocol = htons(ETH_P_ALL);
	ll.sll_ifindex = (int)if_nametoindex("tun0");
	if (k->pkt < 0 || bind(k->pkt, (struct sockaddr *)&ll, sizeof ll) != 0 ||
	    setsockopt(k->pkt, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) != 0)
		return bad_errno(t, "packet socket");
	setsockopt(k->pkt, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
	return true;
}

bool sc_kernel_init(struct sc_target *t, const struct sc_script *s, bool v6)
{
	struct sched_param sp = { .sched_priority = 10 };
	struct kernel *k = calloc(1, sizeof *k);

	if (k == NULL)
		abort();
	k->tun = k->pkt = k->listener = k->fd = -1;
	*t = (struct sc_target){ .name = v6 ? "kernel (IPv6)" : "kernel", .priv = k, .open = kernel_open, .now = kernel_now, .wait = kernel_wait,
		.inject = kernel_inject, .write = kernel_write, .read = kernel_read, .shutdown = kernel_shutdown, .close = kernel_close,
		.setopt = kernel_setopt, .info = kernel_info, .poll = kernel_poll, .inq = kernel_inq, .outq = kernel_outq, .pmtu = kernel_pmtu,
		.move = kernel_nothing, .demotes = kernel_demotes, .end = kernel_end };
	t->c.v6 = v6;
	t->c.lport = 8080;
	t->c.rport = 40000;
	/* A peer that answers late is another script. It sleeps nearly all the time. */
	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &sp) != 0)
		(void)setpriority(PRIO_PROCESS, 0, -20);
	return make_network(t, s);
}
