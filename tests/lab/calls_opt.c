/* calls_opt.c - options, addresses, connecting and listening, flags of the description, SIGIO. Conventions: drive.h. */
#include "calls.h"

#include <fcntl.h>
#include <netinet/tcp.h>

static const struct { const char *name; int level, opt; } int_opts[] = {
	{ "type", SOL_SOCKET, SO_TYPE }, { "domain", SOL_SOCKET, SO_DOMAIN }, { "protocol", SOL_SOCKET, SO_PROTOCOL }, { "error", SOL_SOCKET, SO_ERROR },
	{ "acceptconn", SOL_SOCKET, SO_ACCEPTCONN }, { "reuseaddr", SOL_SOCKET, SO_REUSEADDR }, { "reuseport", SOL_SOCKET, SO_REUSEPORT },
	{ "keepalive", SOL_SOCKET, SO_KEEPALIVE }, { "rcvlowat", SOL_SOCKET, SO_RCVLOWAT }, { "sndlowat", SOL_SOCKET, SO_SNDLOWAT },
	{ "oobinline", SOL_SOCKET, SO_OOBINLINE }, { "priority", SOL_SOCKET, SO_PRIORITY }, { "mark", SOL_SOCKET, SO_MARK }, { "dontroute", SOL_SOCKET, SO_DONTROUTE },
	{ "broadcast", SOL_SOCKET, SO_BROADCAST }, { "timestamp", SOL_SOCKET, SO_TIMESTAMP }, { "peek_off", SOL_SOCKET, SO_PEEK_OFF },
	{ "buf_lock", SOL_SOCKET, 72 }, { "nodelay", IPPROTO_TCP, TCP_NODELAY }, { "cork", IPPROTO_TCP, TCP_CORK }, { "maxseg", IPPROTO_TCP, TCP_MAXSEG },
	{ "keepidle", IPPROTO_TCP, TCP_KEEPIDLE }, { "keepintvl", IPPROTO_TCP, TCP_KEEPINTVL }, { "keepcnt", IPPROTO_TCP, TCP_KEEPCNT },
	{ "syncnt", IPPROTO_TCP, TCP_SYNCNT }, { "linger2", IPPROTO_TCP, TCP_LINGER2 }, { "defer_accept", IPPROTO_TCP, TCP_DEFER_ACCEPT },
	{ "user_timeout", IPPROTO_TCP, TCP_USER_TIMEOUT }, { "notsent_lowat", IPPROTO_TCP, TCP_NOTSENT_LOWAT }, { "repair", IPPROTO_TCP, TCP_REPAIR },
	{ "tos", IPPROTO_IP, IP_TOS }, { "ttl", IPPROTO_IP, IP_TTL }, { "recverr", IPPROTO_IP, IP_RECVERR },
	{ "mtu_discover", IPPROTO_IP, IP_MTU_DISCOVER }, { "freebind", IPPROTO_IP, IP_FREEBIND },
};

static void show(int fd)
{
	for (size_t i = 0; i < sizeof int_opts / sizeof int_opts[0]; i++) {
		int v = -1;
		socklen_t l = sizeof v;
		if (getsockopt(fd, int_opts[i].level, int_opts[i].opt, &v, &l) != 0)
			printf(" %s=%s", int_opts[i].name, err_text(errno));
		else
			printf(" %s=%d", int_opts[i].name, v);
	}
	struct linger lg = { -1, -1 };
	socklen_t l = sizeof lg;
	getsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, &l);
	printf(" linger=%d,%d", lg.l_onoff, lg.l_linger);
	char cc[16] = "";
	l = sizeof cc;
	getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, cc, &l);
	printf(" cc=%s", cc);
	struct tcp_info ti = { 0 };
	l = sizeof ti;
	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &l);
	printf(" info: state=%d options=%x", ti.tcpi_state, ti.tcpi_options & (TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE));
}

void c_getsockopt(void)
{
	struct sock s = tcp_new();
	int mtu = -1;
	show(s.fd);
	getsockopt(s.fd, IPPROTO_IP, IP_MTU, &mtu, &(socklen_t){ sizeof mtu });
	printf(" mtu=%d", mtu);
	still_alive(&s);
}

static void set(int fd, const char *name, int level, int opt, int v)
{
	if (setsockopt(fd, level, opt, &v, sizeof v) != 0)
		printf(" set-%s=%s", name, err_text(errno));
}

/* Set while hot; shown there; shown again after the way back, when the kernel has to honour them. */
void c_setsockopt(void)
{
	struct sock s = tcp_new();
	set(s.fd, "keepalive", SOL_SOCKET, SO_KEEPALIVE, 1);
	set(s.fd, "reuseaddr", SOL_SOCKET, SO_REUSEADDR, 1);
	set(s.fd, "rcvlowat", SOL_SOCKET, SO_RCVLOWAT, 3);
	set(s.fd, "priority", SOL_SOCKET, SO_PRIORITY, 4);
	set(s.fd, "nodelay", IPPROTO_TCP, TCP_NODELAY, 0);
	set(s.fd, "keepidle", IPPROTO_TCP, TCP_KEEPIDLE, 100);
	set(s.fd, "keepintvl", IPPROTO_TCP, TCP_KEEPINTVL, 10);
	set(s.fd, "keepcnt", IPPROTO_TCP, TCP_KEEPCNT, 5);
	set(s.fd, "user_timeout", IPPROTO_TCP, TCP_USER_TIMEOUT, 20000);
	set(s.fd, "linger2", IPPROTO_TCP, TCP_LINGER2, 7);
	set(s.fd, "syncnt", IPPROTO_TCP, TCP_SYNCNT, 3);
	set(s.fd, "notsent", IPPROTO_TCP, TCP_NOTSENT_LOWAT, 50000);
	set(s.fd, "tos", IPPROTO_IP, IP_TOS, 0x10);
	set(s.fd, "ttl", IPPROTO_IP, IP_TTL, 33);
	set(s.fd, "sndbuf", SOL_SOCKET, SO_SNDBUF, 100000);
	set(s.fd, "rcvbuf", SOL_SOCKET, SO_RCVBUF, 90000);
	struct linger lg = { 1, 3 };
	setsockopt(s.fd, SOL_SOCKET, SO_LINGER, &lg, sizeof lg);
	for (int round = 0; round < 3; round++) {
		int snd = 0, rcv = 0;
		getsockopt(s.fd, SOL_SOCKET, SO_SNDBUF, &snd, &(socklen_t){ sizeof snd });
		getsockopt(s.fd, SOL_SOCKET, SO_RCVBUF, &rcv, &(socklen_t){ sizeof rcv });
		printf("\n  round %d: sndbuf=%d rcvbuf=%d", round, snd, rcv);
		show(s.fd);
		if (round == 0) {
			set(s.fd, "rcvlowat", SOL_SOCKET, SO_RCVLOWAT, 1);
			heat_up(&s);
		} else if (round == 1) { /* to the kernel, whether it was elsewhere or not */
			peer_do(ctl, "lab vf-remove; sleep 100");
			warm(&s, 20);
		}
	}
	still_alive(&s);
}

void c_optbad(void)
{
	struct sock s = tcp_new();
	int v = 1;
	char c = 1;
	say_rc("level", setsockopt(s.fd, 12345, 1, &v, sizeof v));
	say_rc("opt", setsockopt(s.fd, IPPROTO_TCP, 12345, &v, sizeof v));
	say_rc("short", setsockopt(s.fd, IPPROTO_TCP, TCP_NODELAY, &c, 1));
	say_rc("zero", setsockopt(s.fd, SOL_SOCKET, SO_KEEPALIVE, &v, 0));
	say_rc("keepidle", (v = -5, setsockopt(s.fd, IPPROTO_TCP, TCP_KEEPIDLE, &v, sizeof v)));
	say_rc("ttl", (v = 1000, setsockopt(s.fd, IPPROTO_IP, IP_TTL, &v, sizeof v)));
	say_rc("type", setsockopt(s.fd, SOL_SOCKET, SO_TYPE, &v, sizeof v));
	say_rc("cc", setsockopt(s.fd, IPPROTO_TCP, TCP_CONGESTION, "nonesuch", 8));
	say_rc("cc-reno", setsockopt(s.fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	socklen_t l = 1;
	say_rc("get-short", getsockopt(s.fd, IPPROTO_TCP, TCP_NODELAY, &v, &l));
	printf(" len=%u", l);
	l = (socklen_t)-1;
	say_rc("get-neg", getsockopt(s.fd, IPPROTO_TCP, TCP_NODELAY, &v, &l));
	struct timeval tv = { 0, 2000000 };
	say_rc("timeo", setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	tv = (struct timeval){ 3, 250000 };
	say_rc("timeo", setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	tv = (struct timeval){ 0 };
	l = sizeof tv;
	say_rc("timeo", getsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &l));
	printf(" %ld.%06ld", (long)tv.tv_sec, (long)tv.tv_usec);
	still_alive(&s);
}

void c_names(void)
{
	struct sock s = tcp_new();
	struct sockaddr_in me, you;
	socklen_t l = sizeof me;
	char t[64];
	say_rc("getsockname", getsockname(s.fd, (void *)&me, &l));
	printf(" %s len=%u port=%s", inet_ntop(AF_INET, &me.sin_addr, t, sizeof t), l, me.sin_port != 0 ? "some" : "none");
	l = sizeof you;
	say_rc("getpeername", getpeername(s.fd, (void *)&you, &l));
	printf(" %s:%d", inet_ntop(AF_INET, &you.sin_addr, t, sizeof t), ntohs(you.sin_port));
	l = 4;
	say_rc("short", getpeername(s.fd, (void *)&you, &l));
	printf(" len=%u", l);
	l = sizeof you;
	say_rc("connect", connect(s.fd, (void *)&you, l));
	say_rc("bind", bind(s.fd, (void *)&me, sizeof me));
	say_rc("listen", listen(s.fd, 1));
	say_rc("accept", accept(s.fd, NULL, NULL));
	peer_do(ctl, "send 0 4");
	char b[8];
	l = sizeof you;
	memset(&you, 0xee, sizeof you);
	ssize_t r = recvfrom(s.fd, b, 4, MSG_WAITALL, (void *)&you, &l);
	say_in("recvfrom", &s, r, b, true);
	printf(" len=%u", l);
	peer_fill(b, 4, s.out);
	you.sin_family = AF_INET;
	say_rc("sendto", sendto(s.fd, b, 4, 0, (void *)&you, sizeof you)); /* the address is ignored */
	s.out += 4;
	printf(" %s", peer_do(ctl, "recv 0 4") ? "ok" : "failed");
	still_alive(&s);
}

void c_disconnect(void)
{
	struct sock s = tcp_new();
	struct sockaddr sa = { .sa_family = AF_UNSPEC };
	struct sockaddr_in you;
	socklen_t l = sizeof you;
	char c;
	say_rc("connect", connect(s.fd, &sa, sizeof sa));
	say_rc("getpeername", getpeername(s.fd, (void *)&you, &l));
	say_rc("send", send(s.fd, "x", 1, MSG_NOSIGNAL));
	say_rc("recv", recv(s.fd, &c, 1, MSG_DONTWAIT));
	/* and connected anew, the same descriptor */
	you = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	inet_pton(AF_INET, peer_addr, &you.sin_addr);
	peer_start(ctl, "acc");
	say_rc("connect", connect(s.fd, (void *)&you, sizeof you));
	peer_done(ctl);
	struct sock again = { .fd = s.fd, .idx = 1 };
	heat_up(&again);
	still_alive(&again);
}

void c_connect(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	struct sock s = { .fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), .idx = 0 };
	char c;
	inet_pton(AF_INET, peer_addr, &sa.sin_addr);
	peer_do(ctl, "vf present");
	say_rc("recv", recv(s.fd, &c, 1, 0));
	struct pollfd p = { .fd = s.fd, .events = POLLIN | POLLOUT };
	int n = poll(&p, 1, 0);
	say_ready("poll", n, (unsigned)p.revents);
	peer_start(ctl, "acc");
	say_rc("connect", connect(s.fd, (void *)&sa, sizeof sa));
	p.events = POLLOUT;
	n = poll(&p, 1, 5000);
	say_ready("poll", n, (unsigned)p.revents);
	int e = -1;
	getsockopt(s.fd, SOL_SOCKET, SO_ERROR, &e, &(socklen_t){ sizeof e });
	printf(" error=%s", err_text(e));
	peer_done(ctl);
	say_rc("connect", connect(s.fd, (void *)&sa, sizeof sa));
	say_rc("connect", connect(s.fd, (void *)&sa, sizeof sa));
	fcntl(s.fd, F_SETFL, 0);
	heat_up(&s);
	still_alive(&s);
	/* nobody there */
	s.fd = socket(AF_INET, SOCK_STREAM, 0);
	sa.sin_port = htons(9);
	say_rc("refused", connect(s.fd, (void *)&sa, sizeof sa));
	say_rc("send", send(s.fd, "x", 1, MSG_NOSIGNAL));
	close(s.fd);
	s.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	connect(s.fd, (void *)&sa, sizeof sa);
	p.fd = s.fd;
	n = poll(&p, 1, 5000);
	say_ready("poll", n, (unsigned)p.revents);
	getsockopt(s.fd, SOL_SOCKET, SO_ERROR, &e, &(socklen_t){ sizeof e });
	printf(" error=%s", err_text(e));
	close(s.fd);
}

/* The server's side: what accept() gives becomes hot and works; the listening socket stays one. */
void c_accept(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT + 1) }, from = { 0 };
	socklen_t l = sizeof from;
	int lfd = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0);
	char t[64];
	setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	setsockopt(lfd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	say_rc("bind", bind(lfd, (void *)&sa, sizeof sa));
	say_rc("listen", listen(lfd, 5));
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	inet_pton(AF_INET, peer_addr, &to.sin_addr);
	peer_start(ctl, "vf present; urecv 1; sleep 30; conn");
	sendto(u, "a", 1, 0, (void *)&to, sizeof to); /* tells it where we are */
	struct pollfd p = { .fd = lfd, .events = POLLIN };
	int n = poll(&p, 1, 10000);
	say_ready("poll", n, (unsigned)p.revents);
	struct sock s = { .fd = accept4(lfd, (void *)&from, &l, SOCK_NONBLOCK | SOCK_CLOEXEC), .idx = 0 };
	peer_done(ctl);
	printf(" from %s len=%u nonblock=%d cloexec=%d", inet_ntop(AF_INET, &from.sin_addr, t, sizeof t), l, (fcntl(s.fd, F_GETFL) & O_NONBLOCK) != 0,
	       fcntl(s.fd, F_GETFD));
	int nodelay = -1;
	getsockopt(s.fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &(socklen_t){ sizeof nodelay });
	printf(" nodelay=%d", nodelay);
	fcntl(s.fd, F_SETFL, 0);
	heat_up(&s);
	say_rc("recv-listening", recv(lfd, t, 1, 0));
	fcntl(lfd, F_SETFL, O_NONBLOCK);
	say_rc("accept", accept(lfd, NULL, NULL));
	still_alive(&s);
	peer_do(ctl, "close 0");
	peer_start(ctl, "conn");
	n = poll(&p, 1, 10000);
	s = (struct sock){ .fd = accept(lfd, NULL, NULL), .idx = 1 };
	peer_done(ctl);
	printf(" inherits-nonblock=%d", (fcntl(s.fd, F_GETFL) & O_NONBLOCK) != 0);
	close(lfd); /* the connection lives without its listener */
	heat_up(&s);
	still_alive(&s);
	close(u);
}

static _Atomic int ios;

static void on_io(int sig)
{
	(void)sig;
	ios++;
}

void c_fcntl(void)
{
	struct sock s = tcp_new();
	printf(" fl=%x fd=%x", fcntl(s.fd, F_GETFL), fcntl(s.fd, F_GETFD));
	say_rc("setfl", fcntl(s.fd, F_SETFL, O_NONBLOCK));
	char c;
	say_rc("read", read(s.fd, &c, 1));
	printf(" fl=%x", fcntl(s.fd, F_GETFL));
	say_rc("setfl", fcntl(s.fd, F_SETFL, 0));
	say_rc("setfd", fcntl(s.fd, F_SETFD, FD_CLOEXEC));
	printf(" fd=%x", fcntl(s.fd, F_GETFD));
	say_rc("bad", fcntl(s.fd, 9999));
	say_rc("getown", fcntl(s.fd, F_GETOWN));
	signal(SIGIO, on_io);
	say_rc("setown", fcntl(s.fd, F_SETOWN, getpid()));
	say_rc("async", fcntl(s.fd, F_SETFL, O_ASYNC));
	peer_do(ctl, "send 0 3");
	for (int i = 0; i < 500 && ios == 0; i++)
		msleep(10);
	printf(" sigio=%s", ios > 0 ? "came" : "none");
	fcntl(s.fd, F_SETFL, 0);
	get(&s, 3);
	still_alive(&s);
}
