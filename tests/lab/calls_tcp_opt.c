/* calls_tcp_opt.c - options that the stack has to honour or that keep a connection in the kernel, set before it is hot, while it is, and inherited from a listener;
 * TCP_INFO across moves. Conventions: drive.h. */
#include "calls.h"

#include <linux/errqueue.h>
#include <linux/filter.h>
#include <linux/tcp.h>
#include <sys/ioctl.h>

static void set(int fd, const char *name, int level, int opt, int v)
{
	if (setsockopt(fd, level, opt, &v, sizeof v) != 0)
		printf(" set-%s=%s", name, err_text(errno));
}

static int get_int(int fd, int level, int opt)
{
	int v = -1;
	return getsockopt(fd, level, opt, &v, &(socklen_t){ sizeof v }) == 0 ? v : -errno;
}

/* A connection with something done to its socket before connect(). */
static struct sock tcp_with(void (*prepare)(int fd))
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	struct sock s = { .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .idx = 0 };
	inet_pton(AF_INET, peer_addr, &sa.sin_addr);
	set(s.fd, "nodelay", IPPROTO_TCP, TCP_NODELAY, 1);
	prepare(s.fd);
	peer_start(ctl, "vf present; acc");
	if (connect(s.fd, (void *)&sa, sizeof sa) != 0)
		printf(" connect=%s", err_text(errno));
	if (!peer_done(ctl))
		printf(" accept failed");
	heat_up(&s);
	return s;
}

static void to_kernel(struct sock *s)
{
	peer_do(ctl, "lab vf-remove; sleep 100");
	warm(s, 20);
}

static void wait_queue(int fd, int n)
{
	int q = 0;
	for (int i = 0; i < 500 && ioctl(fd, FIONREAD, &q) == 0 && q < n; i++)
		msleep(10);
}

static void say_carried(int fd)
{
	char cc[16] = "";
	getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, cc, &(socklen_t){ sizeof cc });
	printf("\n  maxseg=%d clamp=%d cc=%s tos=%x ttl=%d pmtud=%d", get_int(fd, IPPROTO_TCP, TCP_MAXSEG), get_int(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP), cc,
	       get_int(fd, IPPROTO_IP, IP_TOS), get_int(fd, IPPROTO_IP, IP_TTL), get_int(fd, IPPROTO_IP, IP_MTU_DISCOVER));
}

static void prepare_carried(int fd)
{
	set(fd, "maxseg", IPPROTO_TCP, TCP_MAXSEG, 1000);
	set(fd, "clamp", IPPROTO_TCP, TCP_WINDOW_CLAMP, 40000);
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
	set(fd, "tos", IPPROTO_IP, IP_TOS, 0x48);
	set(fd, "ttl", IPPROTO_IP, IP_TTL, 44);
}

/* Set before, changed while hot, still there after the way back. */
void c_opt_carried(void)
{
	struct sock s = tcp_with(prepare_carried);
	say_carried(s.fd);
	set(s.fd, "maxseg", IPPROTO_TCP, TCP_MAXSEG, 800); /* too late for this connection, but not an error */
	set(s.fd, "maxseg", IPPROTO_TCP, TCP_MAXSEG, 3);
	set(s.fd, "clamp", IPPROTO_TCP, TCP_WINDOW_CLAMP, 30000);
	set(s.fd, "clamp", IPPROTO_TCP, TCP_WINDOW_CLAMP, 5); /* raised to a minimum */
	setsockopt(s.fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
	set(s.fd, "tos", IPPROTO_IP, IP_TOS, 0x10);
	set(s.fd, "ttl", IPPROTO_IP, IP_TTL, 33);
	warm(&s, 20);
	say_carried(s.fd);
	to_kernel(&s);
	say_carried(s.fd);
	/* the next connection of this socket has the program's segment size */
	struct sockaddr un = { .sa_family = AF_UNSPEC };
	connect(s.fd, &un, sizeof un);
	printf(" maxseg=%d", get_int(s.fd, IPPROTO_TCP, TCP_MAXSEG));
	close(s.fd);
}

static void prepare_lowat(int fd) { set(fd, "lowat", SOL_SOCKET, SO_RCVLOWAT, 5); }

static void lowat_round(struct sock *s)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN };
	char b[16];
	peer_do(ctl, "send 0 3");
	wait_queue(s->fd, 3);
	int n = poll(&p, 1, 30);
	say_ready("3", n, (unsigned)p.revents);
	peer_do(ctl, "send 0 3");
	n = poll(&p, 1, 5000);
	say_ready("6", n, (unsigned)p.revents);
	ssize_t r = recv(s->fd, b, sizeof b, 0);
	say_in("recv", s, r, b, true);
	peer_start(ctl, "send 0 2; sleep 50; send 0 6");
	r = recv(s->fd, b, sizeof b, 0); /* waits for five */
	say_in("recv", s, r, b, true);
	peer_done(ctl);
}

void c_opt_lowat(void)
{
	struct sock s = tcp_new();
	set(s.fd, "lowat", SOL_SOCKET, SO_RCVLOWAT, 5);
	lowat_round(&s);
	set(s.fd, "lowat", SOL_SOCKET, SO_RCVLOWAT, 1);
	heat_up(&s);
	nothing_more(&s);
	set(s.fd, "lowat", SOL_SOCKET, SO_RCVLOWAT, 5);
	lowat_round(&s);
	set(s.fd, "lowat", SOL_SOCKET, SO_RCVLOWAT, 1);
	still_alive(&s);
}

static void say_cmsgs(struct sock *s)
{
	char b[64], c[256];
	struct iovec v = { b, 4 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c, .msg_name = NULL, .msg_namelen = 77 };
	peer_do(ctl, "send 0 9");
	wait_queue(s->fd, 9);
	ssize_t r = recvmsg(s->fd, &m, MSG_CMSG_CLOEXEC);
	say_in("recvmsg", s, r, b, true);
	printf(" flags=%x namelen=%u controllen=%zu", m.msg_flags, m.msg_namelen, (size_t)m.msg_controllen);
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h != NULL; h = CMSG_NXTHDR(&m, h)) {
		printf(" (%d,%d,%zu)", h->cmsg_level, h->cmsg_type, (size_t)h->cmsg_len);
		if (h->cmsg_level == IPPROTO_TCP)
			printf(" inq=%d", *(int *)(void *)CMSG_DATA(h));
	}
	r = recv(s->fd, b, 5, MSG_WAITALL);
	say_in("rest", s, r, b, true);
}

static void prepare_stamp(int fd) { set(fd, "timestamp", SOL_SOCKET, SO_TIMESTAMP, 1); }

/* Control messages with what is read from a stream. */
void c_opt_cmsg(void)
{
	struct sock s = tcp_with(prepare_stamp);
	say_cmsgs(&s);
	set(s.fd, "timestamp", SOL_SOCKET, SO_TIMESTAMP, 0);
	heat_up(&s);
	say_cmsgs(&s);
	set(s.fd, "inq", IPPROTO_TCP, TCP_INQ, 1);
	heat_up(&s);
	say_cmsgs(&s);
	set(s.fd, "inq", IPPROTO_TCP, TCP_INQ, 0);
	heat_up(&s);
	say_cmsgs(&s);
	still_alive(&s);
}

static void prepare_zc(int fd) { set(fd, "zerocopy", SOL_SOCKET, SO_ZEROCOPY, 1); }

void c_opt_zerocopy(void)
{
	struct sock s = tcp_with(prepare_zc);
	static char b[20000];
	char c[256];
	peer_fill(b, sizeof b, s.out);
	peer_start(ctl, "recv 0 20000");
	say_rc("send", send(s.fd, b, sizeof b, MSG_ZEROCOPY));
	s.out += sizeof b;
	printf(" %s", peer_done(ctl) ? "ok" : "failed");
	struct pollfd p = { .fd = s.fd, .events = 0 };
	int n = poll(&p, 1, 5000);
	say_ready("poll", n, (unsigned)p.revents);
	struct msghdr m = { .msg_control = c, .msg_controllen = sizeof c };
	say_rc("errqueue", recvmsg(s.fd, &m, MSG_ERRQUEUE));
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	struct sock_extended_err *ee = h != NULL ? (void *)CMSG_DATA(h) : NULL;
	if (ee != NULL)
		printf(" origin=%d %u-%u", ee->ee_origin, ee->ee_info, ee->ee_data);
	still_alive(&s);
}

/* What is set on a listener is a connection's from the beginning. */
void c_opt_inherited(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT + 1) }, to = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	int l = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0);
	inet_pton(AF_INET, peer_addr, &to.sin_addr);
	set(l, "reuseaddr", SOL_SOCKET, SO_REUSEADDR, 1);
	set(l, "nodelay", IPPROTO_TCP, TCP_NODELAY, 1);
	set(l, "keepidle", IPPROTO_TCP, TCP_KEEPIDLE, 123);
	set(l, "keepalive", SOL_SOCKET, SO_KEEPALIVE, 1);
	set(l, "user_timeout", IPPROTO_TCP, TCP_USER_TIMEOUT, 33000);
	prepare_carried(l);
	prepare_lowat(l);
	bind(l, (void *)&sa, sizeof sa);
	listen(l, 5);
	peer_start(ctl, "vf present; urecv 1; sleep 30; conn");
	sendto(u, "a", 1, 0, (void *)&to, sizeof to);
	struct sock s = { .fd = accept(l, NULL, NULL), .idx = 0 };
	peer_done(ctl);
	set(s.fd, "lowat", SOL_SOCKET, SO_RCVLOWAT, 1);
	heat_up(&s);
	set(s.fd, "lowat", SOL_SOCKET, SO_RCVLOWAT, 5);
	lowat_round(&s);
	set(s.fd, "lowat", SOL_SOCKET, SO_RCVLOWAT, 1);
	heat_up(&s);
	for (int round = 0; round < 2; round++) {
		say_carried(s.fd);
		printf(" nodelay=%d keepalive=%d keepidle=%d timeout=%d", get_int(s.fd, IPPROTO_TCP, TCP_NODELAY), get_int(s.fd, SOL_SOCKET, SO_KEEPALIVE),
		       get_int(s.fd, IPPROTO_TCP, TCP_KEEPIDLE), get_int(s.fd, IPPROTO_TCP, TCP_USER_TIMEOUT));
		if (round == 0)
			to_kernel(&s);
	}
	still_alive(&s);
	close(l);
	close(u);
}

/* Options that a hot connection comes and goes with. */
void c_opt_toggle(void)
{
	static const struct { const char *name; int level, opt, on, off; } t[] = {
		{ "tos", IPPROTO_IP, IP_TOS, 8, 0 }, { "pmtud", IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_WANT },
		{ "recverr", IPPROTO_IP, IP_RECVERR, 1, 0 }, { "pacing", SOL_SOCKET, SO_MAX_PACING_RATE, 1000000, -1 }, { "mark", SOL_SOCKET, SO_MARK, 7, 0 },
		{ "dontroute", SOL_SOCKET, SO_DONTROUTE, 1, 0 }, { "priority", SOL_SOCKET, SO_PRIORITY, 3, 0 }, { "cork", IPPROTO_TCP, TCP_CORK, 1, 0 },
		{ "nodelay", IPPROTO_TCP, TCP_NODELAY, 0, 1 }, { "quickack", IPPROTO_TCP, TCP_QUICKACK, 1, 0 }, { "txdelay", IPPROTO_TCP, TCP_TX_DELAY, 0, 0 },
		{ "fastopen", IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1, 0 }, { "busy", SOL_SOCKET, SO_BUSY_POLL, 0, 0 },
	};
	struct sock s = tcp_new();
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		int v = t[i].on;
		say_rc(t[i].name, setsockopt(s.fd, t[i].level, t[i].opt, &v, sizeof v));
		if (t[i].opt != TCP_QUICKACK)
			printf(":%d", get_int(s.fd, t[i].level, t[i].opt));
		if (t[i].opt != TCP_CORK)
			warm(&s, 20);
		v = t[i].off;
		setsockopt(s.fd, t[i].level, t[i].opt, &v, sizeof v);
		warm(&s, 20);
	}
	heat_up(&s);
	still_alive(&s);
}

/* A filter of the program's on a hot connection, where one of the library's may be: it is there, it goes, and so does one more; options that nobody knows. */
void c_opt_live(void)
{
	struct sock_filter all[2] = { BPF_STMT(BPF_LD | BPF_IMM, 7), BPF_STMT(BPF_RET | BPF_K, 0xffffffff) };
	struct sock_fprog p = { 2, all };
	struct sock s = tcp_new();
	for (int i = 0; i < 2; i++) {
		socklen_t n = 0;
		heat_up(&s);
		say_rc("attach", setsockopt(s.fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p));
		warm(&s, 20);
		say_rc("get", getsockopt(s.fd, SOL_SOCKET, SO_GET_FILTER, NULL, &n));
		printf(" length=%u", n);
		say_rc("detach", setsockopt(s.fd, SOL_SOCKET, SO_DETACH_FILTER, &p, sizeof p));
		say_rc("again", setsockopt(s.fd, SOL_SOCKET, SO_DETACH_FILTER, &p, sizeof p));
	}
	still_alive(&s);
	close(s.fd);
	struct sock u = tcp_new();
	heat_up(&u);
	say_rc("unknown", setsockopt(u.fd, IPPROTO_TCP, 250, &p, sizeof p));
	printf(" repair=%d unknown=%d", get_int(u.fd, IPPROTO_TCP, TCP_REPAIR), get_int(u.fd, IPPROTO_TCP, 250));
	warm(&u, 20);
	still_alive(&u);
}

/* The buffers are as small as they say. */
void c_opt_buffers(void)
{
	struct sock s = tcp_new();
	static char b[1 << 20];
	ssize_t n, sum = 0;
	set(s.fd, "sndbuf", SOL_SOCKET, SO_SNDBUF, 30000);
	set(s.fd, "rcvbuf", SOL_SOCKET, SO_RCVBUF, 30000);
	printf(" sndbuf=%d rcvbuf=%d", get_int(s.fd, SOL_SOCKET, SO_SNDBUF), get_int(s.fd, SOL_SOCKET, SO_RCVBUF));
	for (int i = 0; i < 2000; i++) { /* until the peer's buffer is full, and ours */
		peer_fill(b, sizeof b, s.out);
		n = send(s.fd, b, sizeof b, MSG_DONTWAIT);
		if (n <= 0) {
			msleep(10);
			n = send(s.fd, b, sizeof b, MSG_DONTWAIT);
			if (n <= 0)
				break;
		}
		s.out += (uint64_t)n;
		sum += n;
	}
	int q = 0;
	ioctl(s.fd, TIOCOUTQ, &q);
	printf(" queue %s", q >= 10000 && q <= 120000 ? "small" : "WRONG");
	if (q < 10000 || q > 120000)
		printf(" (%d of %zd)", q, sum);
	peer_do(ctl, "recv 0 %zd", sum);
	still_alive(&s);
}

void c_info_length(void)
{
	static const socklen_t lens[] = { 0, 1, 2, 8, 24, 104, 192, 232, 1000 };
	struct sock s = tcp_new();
	for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
		unsigned char v[1000];
		socklen_t l = lens[i];
		memset(v, 0xee, sizeof v);
		int r = getsockopt(s.fd, IPPROTO_TCP, TCP_INFO, v, &l);
		printf(" %u=%d:%u", lens[i], r, l);
		printf(" state=%d behind=%s", v[0], l == sizeof v || v[l] == 0xee ? "untouched" : "WRITTEN");
	}
	uint32_t mem[9];
	socklen_t l = sizeof mem;
	say_rc("meminfo", getsockopt(s.fd, SOL_SOCKET, SO_MEMINFO, mem, &l));
	printf(" len=%u", l);
	still_alive(&s);
}

static struct tcp_info info(int fd)
{
	struct tcp_info ti;
	socklen_t l = sizeof ti;
	memset(&ti, 0, sizeof ti);
	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &l);
	return ti;
}

#define SAME(f) (ti.f == was->f ? "" : " " #f " CHANGED")
#define FORWARD(f) (ti.f >= was->f ? "" : " " #f " WENT BACK")

/* What the handshake has settled stays; counts go on; figures are possible ones. */
static void compare(int fd, const char *when, struct tcp_info *was, uint64_t in, uint64_t out)
{
	struct tcp_info ti = info(fd);
	printf("\n  %s: state=%d ca=%d wscale=%s options=%x%s%s%s%s%s", when, ti.tcpi_state, ti.tcpi_ca_state, ti.tcpi_snd_wscale != 0 ? "some" : "none",
	       ti.tcpi_options & (TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE), ti.tcpi_snd_wscale == was->tcpi_snd_wscale ? "" : " snd_wscale CHANGED",
	       ti.tcpi_rcv_wscale == was->tcpi_rcv_wscale ? "" : " rcv_wscale CHANGED", SAME(tcpi_snd_mss), SAME(tcpi_pmtu), SAME(tcpi_advmss));
	printf("%s%s%s%s%s%s%s%s", FORWARD(tcpi_segs_in), FORWARD(tcpi_segs_out), FORWARD(tcpi_data_segs_in), FORWARD(tcpi_data_segs_out), FORWARD(tcpi_bytes_acked),
	       FORWARD(tcpi_bytes_received), FORWARD(tcpi_total_retrans), FORWARD(tcpi_delivered));
	printf(" received=%s acked=%s", ti.tcpi_bytes_received == in ? "all" : "WRONG", ti.tcpi_bytes_acked == out || ti.tcpi_bytes_acked == out + 1 ? "all" : "WRONG");
	printf(" data segments in=%s out=%s", ti.tcpi_data_segs_in >= in / 1460 && ti.tcpi_data_segs_in <= ti.tcpi_segs_in ? "ok" : "WRONG",
	       ti.tcpi_data_segs_out >= out / 1460 && ti.tcpi_data_segs_out <= ti.tcpi_segs_out ? "ok" : "WRONG");
	printf(" rtt=%s rto=%s cwnd=%s mss=%s min_rtt=%s unacked=%u sacked=%u lost=%u retrans=%u notsent=%u snd_wnd=%s", ti.tcpi_rtt > 0 && ti.tcpi_rtt < 100000 ? "ok" : "WRONG",
	       ti.tcpi_rto >= 200000 && ti.tcpi_rto < 500000 ? "ok" : "WRONG", ti.tcpi_snd_cwnd >= 2 ? "ok" : "WRONG", ti.tcpi_rcv_mss >= 88 ? "ok" : "WRONG",
	       ti.tcpi_min_rtt > 0 && ti.tcpi_min_rtt < 100000 ? "ok" : "WRONG", ti.tcpi_unacked, ti.tcpi_sacked, ti.tcpi_lost, ti.tcpi_retrans, ti.tcpi_notsent_bytes,
	       ti.tcpi_snd_wnd > 0 ? "ok" : "WRONG");
	printf(" last=%s", ti.tcpi_last_data_sent < 5000 && ti.tcpi_last_data_recv < 5000 && ti.tcpi_last_ack_recv < 5000 ? "ok" : "WRONG");
	*was = ti;
}

static void prepare_nothing(int fd) { (void)fd; }

void c_info_moves(void)
{
	struct sock s = tcp_with(prepare_nothing);
	struct tcp_info was = info(s.fd);
	compare(s.fd, "hot", &was, s.in, s.out);
	/* the peer's clock has seen our time stamps: they must not go back on either way (PAWS would drop everything) */
	for (int i = 0; i < 2; i++) {
		to_kernel(&s);
		msleep(50);
		compare(s.fd, "kernel", &was, s.in, s.out);
		peer_do(ctl, "vf present; send 0 5000; recv 0 0");
		get(&s, 5000);
		heat_up(&s);
		msleep(50);
		compare(s.fd, "hot", &was, s.in, s.out);
	}
	still_alive(&s);
}
