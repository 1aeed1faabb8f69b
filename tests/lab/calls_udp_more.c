/* calls_udp_more.c - UDP again: control messages on hot sockets, errors that come by ICMP, corked and peeked datagrams, full queues, shared ports, segmentation. */
#include "calls.h"

#include <net/if.h>
#include <linux/sockios.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

static struct sockaddr_in peer_sa(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	inet_pton(AF_INET, peer_addr, &sa.sin_addr);
	return sa;
}

/* Echoes until the socket is on the VF, if there is one; c: to whom, NULL: connected. */
static void hot(int fd, const struct sockaddr *to, socklen_t len)
{
	char b[16];
	peer_start(ctl, "uecho 200");
	for (int i = 0; i < 200; i++) {
		if (i % 20 == 19)
			msleep(15);
		ssize_t w = sendto(fd, "abc", 3, 0, to, to != NULL ? len : 0), r = recv(fd, b, sizeof b, 0);
		if (w != 3 || r != 3) {
			printf(" warm-up failed");
			break;
		}
	}
	peer_done(ctl);
}

static int udp_new(bool connected)
{
	struct sockaddr_in sa = peer_sa();
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	peer_do(ctl, "vf present");
	if (connected)
		connect(fd, (void *)&sa, sizeof sa);
	else
		bind(fd, (void *)&(struct sockaddr_in){ .sin_family = AF_INET }, sizeof sa);
	return fd;
}

static int udp_hot(bool connected)
{
	struct sockaddr_in sa = peer_sa();
	int fd = udp_new(connected);
	hot(fd, connected ? NULL : (void *)&sa, sizeof sa);
	return fd;
}

static bool wait_ev(int fd, short ev, int ms)
{
	struct pollfd p = { .fd = fd, .events = ev };
	int n = poll(&p, 1, ms);
	say_ready("poll", n, (unsigned)p.revents);
	return n > 0;
}

static void say_addr(const char *name, const void *a)
{
	char t[64];
	printf(" %s=%s", name, inet_ntop(AF_INET, a, t, sizeof t));
}

/* recvmsg() with all its control messages, times as "some". */
static void receive(int fd, size_t room, int flags)
{
	char b[2000], c[512], t[64], name[IF_NAMESIZE];
	struct iovec v = { b, sizeof b };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = room };
	memset(c, 0, sizeof c);
	ssize_t n = recvmsg(fd, &m, flags);
	say_rc("recvmsg", n);
	if (n < 0)
		return;
	printf("%s flags=%x controllen=%zu", peer_check(b, (size_t)n, 0) ? "" : " WRONG OCTETS", m.msg_flags, (size_t)m.msg_controllen);
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h != NULL; h = CMSG_NXTHDR(&m, h)) {
		void *d = CMSG_DATA(h);
		printf(" (%d,%d,%zu)", h->cmsg_level, h->cmsg_type, (size_t)h->cmsg_len);
		if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_PKTINFO && h->cmsg_len == CMSG_LEN(sizeof(struct in_pktinfo))) {
			struct in_pktinfo *pi = d;
			printf(" if=%s", if_indextoname((unsigned)pi->ipi_ifindex, name) != NULL ? name : "?");
			say_addr("dst", &pi->ipi_addr);
			say_addr("spec", &pi->ipi_spec_dst);
		} else if (h->cmsg_level == IPPROTO_IPV6 && h->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo *pi = d;
			printf(" if=%s dst=%s", if_indextoname(pi->ipi6_ifindex, name) != NULL ? name : "?", inet_ntop(AF_INET6, &pi->ipi6_addr, t, sizeof t));
		} else if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_TTL && h->cmsg_len == CMSG_LEN(sizeof(int))) {
			printf(" ttl=%d", *(int *)d);
		} else if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_TOS) {
			printf(" tos=%x", *(uint8_t *)d);
		} else if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_ORIGDSTADDR && h->cmsg_len == CMSG_LEN(sizeof(struct sockaddr_in))) {
			say_addr("orig", &((struct sockaddr_in *)d)->sin_addr);
			printf(" port=%s", ((struct sockaddr_in *)d)->sin_port != 0 ? "some" : "none");
		} else if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SO_RXQ_OVFL) {
			printf(" drops=%s", *(uint32_t *)d != 0 ? "some" : "0");
		}
	}
}

static const struct { int level, opt; } wanted[] = {
	{ IPPROTO_IP, IP_PKTINFO }, { IPPROTO_IP, IP_RECVTTL }, { IPPROTO_IP, IP_RECVTOS }, { IPPROTO_IP, IP_RECVORIGDSTADDR },
};

/* Asked for before the socket is hot, and taken back while it is. */
void c_udp_cmsg_hot(void)
{
	for (int connected = 0; connected < 2; connected++) {
		struct sockaddr_in sa = peer_sa();
		int fd = udp_new(connected != 0);
		for (size_t i = 0; i < 4; i++)
			setsockopt(fd, wanted[i].level, wanted[i].opt, &(int){ 1 }, sizeof(int));
		hot(fd, connected ? NULL : (void *)&sa, sizeof sa);
		peer_do(ctl, "utos 184; usend 9; utos 0; usend 8; usend 7; usend 6; usend 5; usend 4");
		receive(fd, 512, 0);
		receive(fd, 512, MSG_CMSG_CLOEXEC);
		receive(fd, 60, 0);
		receive(fd, 20, 0);
		receive(fd, 8, 0);
		receive(fd, 0, 0);
		for (size_t i = 0; i < 4; i++) {
			setsockopt(fd, wanted[i].level, wanted[i].opt, &(int){ 0 }, sizeof(int));
			peer_do(ctl, "usend 9");
			receive(fd, 512, 0);
		}
		for (size_t i = 0; i < 4; i++)
			setsockopt(fd, wanted[i].level, wanted[i].opt, &(int){ 1 }, sizeof(int));
		peer_do(ctl, "usend 100; lab vf-remove; usend 200"); /* one before the move, one after */
		receive(fd, 512, 0);
		receive(fd, 512, 0);
		close(fd);
	}
}

/* An IPv6 socket that talks IPv4: control messages of both families. */
void c_udp_mapped(void)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6, .sin6_port = htons(PEER_PORT) }, from;
	char t[64], b[32];
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);
	snprintf(t, sizeof t, "::ffff:%s", peer_addr);
	inet_pton(AF_INET6, t, &sa.sin6_addr);
	peer_do(ctl, "vf present");
	say_rc("connect", connect(fd, (void *)&sa, sizeof sa));
	setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &(int){ 1 }, sizeof(int));
	setsockopt(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &(int){ 1 }, sizeof(int));
	setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &(int){ 1 }, sizeof(int));
	setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &(int){ 1 }, sizeof(int));
	hot(fd, NULL, 0);
	peer_do(ctl, "usend 9; usend 8");
	receive(fd, 512, 0);
	socklen_t l = sizeof from;
	say_rc("recvfrom", recvfrom(fd, b, sizeof b, 0, (void *)&from, &l));
	printf(" from %s len=%u", inet_ntop(AF_INET6, &from.sin6_addr, t, sizeof t), l);
	close(fd);
}

/* Things that only the kernel can tell: there when asked for, gone afterwards, and the socket works on. */
void c_udp_kernel_cmsg(void)
{
	static const int opts[] = { SO_TIMESTAMP, SO_TIMESTAMPNS, SO_RXQ_OVFL };
	int fd = udp_hot(true);
	for (size_t i = 0; i < sizeof opts / sizeof opts[0]; i++) {
		setsockopt(fd, SOL_SOCKET, opts[i], &(int){ 1 }, sizeof(int));
		hot(fd, NULL, 0);
		peer_do(ctl, "usend 9");
		receive(fd, 512, 0);
		setsockopt(fd, SOL_SOCKET, opts[i], &(int){ 0 }, sizeof(int));
		hot(fd, NULL, 0);
		peer_do(ctl, "usend 10");
		receive(fd, 512, 0);
	}
	close(fd);
}

/* The peer's port closes under a hot socket: ICMP comes by another way than data. */
void c_udp_refused(void)
{
	int fd = udp_hot(true);
	char b[16];
	peer_do(ctl, "uclose");
	say_rc("send", send(fd, "x", 1, 0));
	wait_ev(fd, POLLIN, 5000);
	say_rc("recv", recv(fd, b, sizeof b, MSG_DONTWAIT));
	say_rc("recv", recv(fd, b, sizeof b, MSG_DONTWAIT));
	say_rc("send", send(fd, "x", 1, 0));
	msleep(50);
	say_rc("send", send(fd, "x", 1, 0));
	say_rc("send", send(fd, "x", 1, 0));
	msleep(50);
	int e = -1;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &(socklen_t){ sizeof e });
	printf(" error=%s", err_text(e));
	say_rc("recv", recv(fd, b, sizeof b, MSG_DONTWAIT));
	struct timeval tv = { 5, 0 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	say_rc("send", send(fd, "x", 1, 0));
	say_rc("blocking", recv(fd, b, sizeof b, 0));
	int ep = epoll_create1(0);
	struct epoll_event ev = { .events = EPOLLIN };
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	say_rc("send", send(fd, "x", 1, 0));
	int n = epoll_wait(ep, &ev, 1, 5000);
	say_ready("epoll", n, ev.events);
	say_rc("recv", recv(fd, b, sizeof b, MSG_DONTWAIT));
	n = epoll_wait(ep, &ev, 1, 0);
	say_ready("epoll", n, n > 0 ? ev.events : 0);
	peer_do(ctl, "uopen");
	hot(fd, NULL, 0);
	/* and with the error queue */
	setsockopt(fd, IPPROTO_IP, IP_RECVERR, &(int){ 1 }, sizeof(int));
	peer_do(ctl, "uclose");
	say_rc("send", send(fd, "abc", 3, 0));
	wait_ev(fd, POLLIN, 5000);
	receive(fd, 512, MSG_ERRQUEUE | MSG_DONTWAIT);
	say_rc("recv", recv(fd, b, sizeof b, MSG_DONTWAIT));
	peer_do(ctl, "uopen");
	setsockopt(fd, IPPROTO_IP, IP_RECVERR, &(int){ 0 }, sizeof(int));
	hot(fd, NULL, 0);
	close(ep);
	close(fd);
}

/* Pieces of one datagram: what has begun in the kernel goes on there. */
void c_udp_more(void)
{
	int fd = udp_hot(true);
	char b[64];
	peer_fill(b, sizeof b, 0);
	peer_start(ctl, "urecv 10; urecv 5; urecv 12; urecv 4; usend 3");
	say_rc("more", send(fd, b, 3, MSG_MORE));
	say_rc("more", send(fd, b + 3, 3, MSG_MORE));
	say_rc("rest", send(fd, b + 6, 4, 0));
	say_rc("whole", send(fd, b, 5, 0));
	setsockopt(fd, IPPROTO_UDP, UDP_CORK, &(int){ 1 }, sizeof(int));
	say_rc("corked", send(fd, b, 6, 0));
	say_rc("corked", send(fd, b + 6, 6, 0));
	setsockopt(fd, IPPROTO_UDP, UDP_CORK, &(int){ 0 }, sizeof(int));
	say_rc("whole", send(fd, b, 4, 0));
	printf(" %s", peer_done(ctl) ? "ok" : "failed");
	say_rc("recv", recv(fd, b, sizeof b, 0));
	hot(fd, NULL, 0);
	close(fd);
}

/* What was looked at is what comes next, with datagrams in both queues: those beyond the MTU arrive in fragments, which the VF doesn't see. */
void c_udp_peek(void)
{
	int fd = udp_hot(true), q;
	static char b[5000];
	for (int round = 0; round < 20; round++) {
		peer_do(ctl, "usend 30; usend 4000; usend 31; usend 4001; usend 32");
		msleep(20);
		bool ok = true;
		int sum = 0;
		for (int i = 0; i < 5; i++) {
			ioctl(fd, FIONREAD, &q);
			ssize_t p1 = recv(fd, b, 1, MSG_PEEK | MSG_TRUNC), p2 = recv(fd, b, sizeof b, MSG_PEEK);
			wait_ev(fd, POLLIN, 0);
			ssize_t r = recv(fd, b, sizeof b, MSG_DONTWAIT);
			ok = ok && q == p1 && p1 == p2 && p2 == r && peer_check(b, (size_t)r, 0);
			sum += (int)r;
		}
		printf(" %s %d", ok ? "same" : "DIFFERENT", sum);
		say_rc("more", recv(fd, b, sizeof b, MSG_DONTWAIT));
	}
	close(fd);
}

/* A reader that doesn't read: SO_RCVBUF says how many wait, the others are dropped, and nothing else suffers. */
void c_udp_full(void)
{
	int fd = udp_hot(true), n = 0;
	char b[2000];
	struct sock s = tcp_new();
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){ 32768 }, sizeof(int));
	peer_do(ctl, "uflood 400 64");
	msleep(50);
	warm(&s, 20);
	while (recv(fd, b, sizeof b, MSG_DONTWAIT) == 64)
		n++;
	printf(" small %s", n >= 60 && n <= 130 ? "as many as fit" : n < 60 ? "TOO FEW" : "TOO MANY");
	if (n < 60 || n > 130)
		printf(" (%d)", n);
	n = 0;
	peer_do(ctl, "uflood 400 1400");
	msleep(50);
	warm(&s, 20);
	while (recv(fd, b, sizeof b, MSG_DONTWAIT) == 1400)
		n++;
	printf(" big %s", n >= 14 && n <= 45 ? "as many as fit" : n < 14 ? "TOO FEW" : "TOO MANY");
	if (n < 14 || n > 45)
		printf(" (%d)", n);
	hot(fd, NULL, 0);
	still_alive(&s);
	close(fd);
}

/* Many slow readers: together they may hold far more than the VF has buffers. All of it is there, in order, when they read. */
void c_udp_slow(void)
{
	enum { SOCKS = 24, EACH = 200 };
	int fd[SOCKS];
	char b[2000];
	struct sock s = tcp_new();
	for (int i = 0; i < SOCKS; i++) {
		fd[i] = udp_new(true);
		peer_start(ctl, "uecho 60");
		for (int k = 0; k < 60; k++) {
			send(fd[i], "abc", 3, 0);
			recv(fd[i], b, sizeof b, 0);
		}
		peer_done(ctl);
		peer_do(ctl, "uflood %d 60", EACH);
	}
	warm(&s, 50);
	int sum = 0, wrong = 0;
	for (int i = 0; i < SOCKS; i++) {
		ssize_t r;
		while ((r = recv(fd[i], b, sizeof b, MSG_DONTWAIT)) >= 0) {
			sum++;
			wrong += r != 60 || !peer_check(b, 60, 0);
		}
		close(fd[i]);
	}
	printf(" read %d wrong %d", sum, wrong);
	still_alive(&s);
}

/* A second socket on the port of a hot one takes what the kernel would give it. */
void c_udp_reuse(void)
{
	struct sockaddr_in sa = peer_sa(), me;
	socklen_t l = sizeof me;
	char x[64];
	int a = socket(AF_INET, SOCK_DGRAM, 0), b;
	peer_do(ctl, "vf present");
	setsockopt(a, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	bind(a, (void *)&(struct sockaddr_in){ .sin_family = AF_INET }, sizeof sa);
	hot(a, (void *)&sa, sizeof sa);
	getsockname(a, (void *)&me, &l);
	b = socket(AF_INET, SOCK_DGRAM, 0);
	setsockopt(b, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	say_rc("bind", bind(b, (void *)&me, sizeof me));
	say_rc("connect", connect(b, (void *)&sa, sizeof sa));
	peer_do(ctl, "usend 20");
	msleep(20);
	say_rc("first", recv(a, x, sizeof x, MSG_DONTWAIT));
	say_rc("second", recv(b, x, sizeof x, MSG_DONTWAIT));
	close(b);
	hot(a, (void *)&sa, sizeof sa);
	close(a);
}

void c_udp_segment(void)
{
	int fd = udp_hot(true);
	char b[4000], c[64] = { 0 };
	struct iovec v = { b, 3000 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = CMSG_SPACE(2) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	for (int i = 0; i < 3; i++)
		peer_fill(b + 1000 * i, 1000, 0);
	h->cmsg_level = IPPROTO_UDP;
	h->cmsg_type = UDP_SEGMENT;
	h->cmsg_len = CMSG_LEN(2);
	memcpy(CMSG_DATA(h), &(uint16_t){ 1000 }, 2);
	peer_start(ctl, "urecv 1000; urecv 1000; urecv 1000");
	say_rc("sendmsg", sendmsg(fd, &m, 0));
	printf(" %s", peer_done(ctl) ? "ok" : "failed");
	peer_start(ctl, "urecv 1000; urecv 1000; urecv 1000");
	say_rc("option", setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &(int){ 1000 }, sizeof(int)));
	say_rc("send", send(fd, b, 3000, 0));
	printf(" %s", peer_done(ctl) ? "ok" : "failed");
	setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &(int){ 0 }, sizeof(int));
	say_rc("gro", setsockopt(fd, IPPROTO_UDP, UDP_GRO, &(int){ 1 }, sizeof(int)));
	hot(fd, NULL, 0);
	/* what the path takes, and what it is told */
	say_rc("do", setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &(int){ IP_PMTUDISC_DO }, sizeof(int)));
	say_rc("too-big", send(fd, b, 3000, 0));
	say_rc("dont", setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &(int){ IP_PMTUDISC_DONT }, sizeof(int)));
	setsockopt(fd, IPPROTO_UDP, UDP_GRO, &(int){ 0 }, sizeof(int));
	hot(fd, NULL, 0);
	say_rc("join", setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &(struct ip_mreq){ { htonl(0xefffff01) }, { 0 } }, sizeof(struct ip_mreq)));
	hot(fd, NULL, 0);
	close(fd);
}

/* A vector of no octets is no datagram, a buffer of none is one. */
void c_udp_nothing(void)
{
	int fd = udp_hot(true);
	char b[16];
	struct iovec v[2] = { { b, 0 }, { b, 0 } };
	peer_fill(b, sizeof b, 0);
	peer_start(ctl, "urecv 5; urecv 0; urecv 0; urecv 6; usend 7; usend 8");
	say_rc("writev", writev(fd, v, 2));
	say_rc("writev", writev(fd, v, 0));
	say_rc("pwritev2", pwritev2(fd, v, 1, -1, 0));
	say_rc("five", send(fd, b, 5, 0));
	say_rc("write", write(fd, b, 0));
	say_rc("send", send(fd, b, 0, 0));
	say_rc("six", send(fd, b, 6, 0));
	printf(" %s", peer_done(ctl) ? "ok" : "failed");
	msleep(30);
	say_rc("read", read(fd, b, 0)); /* doesn't take a datagram, unlike recv() */
	say_rc("readv", readv(fd, v, 2));
	say_rc("recv", recv(fd, b, 0, MSG_DONTWAIT));
	say_rc("recv", recv(fd, b, sizeof b, MSG_DONTWAIT));
	say_rc("recv", recv(fd, b, sizeof b, MSG_DONTWAIT));
	hot(fd, NULL, 0);
	close(fd);
}

/* What poll() says is true: one datagram, then none, whichever of the two queues it has come by. */
void c_udp_turns(void)
{
	int fd = udp_hot(true), ep = epoll_create1(0);
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
	static char b[5000];
	for (int i = 0; i < 12; i++) {
		peer_start(ctl, "sleep 10; usend %d", i % 3 == 0 ? 4000 : 40);
		wait_ev(fd, POLLIN, 5000);
		say_rc("recv", recv(fd, b, sizeof b, MSG_DONTWAIT));
		peer_done(ctl);
		wait_ev(fd, POLLIN, 0);
	}
	hot(fd, NULL, 0);
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	while (epoll_wait(ep, &ev, 1, 50) > 0)
		;
	for (int i = 0; i < 6; i++) {
		peer_start(ctl, "sleep 20; usend %d; usend %d", i % 3 == 0 ? 4000 : 40, i % 2 == 0 ? 4000 : 40);
		int n = 0;
		while (n < 2 && epoll_wait(ep, &ev, 1, 5000) == 1)
			while (recv(fd, b, sizeof b, MSG_DONTWAIT) > 0)
				n++;
		peer_done(ctl);
		printf(" %d", n);
	}
	hot(fd, NULL, 0);
	close(ep);
	close(fd);
}

static void say_stamp(int fd)
{
	struct timeval tv = { 0, 0 };
	struct timespec now;
	say_rc("stamp", ioctl(fd, SIOCGSTAMP, &tv));
	clock_gettime(CLOCK_REALTIME, &now);
	double age = (double)(now.tv_sec - tv.tv_sec) + (double)now.tv_nsec / 1e9 - (double)tv.tv_usec / 1e6;
	printf(" %s", age > -0.1 && age < 0.9 ? "new" : "OLD");
}

/* When the last packet came, by the call that is older than the options. */
void c_udp_stamp(void)
{
	int fd = udp_hot(true);
	say_stamp(fd);
	hot(fd, NULL, 0);
	say_stamp(fd);
	msleep(1000);
	hot(fd, NULL, 0);
	say_stamp(fd);
	close(fd);
}

/* An ICMP error that a call with room for several datagrams hears of behind the first one is the next call's. The order of the two isn't the same everywhere. */
void c_udp_error_later(void)
{
	int fd = udp_hot(true), got = 0, refused = 0, other = 0;
	char b[4][64];
	struct iovec v[4];
	struct mmsghdr m[4];
	memset(m, 0, sizeof m);
	for (int i = 0; i < 4; i++) {
		v[i] = (struct iovec){ b[i], sizeof b[i] };
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &v[i], .msg_iovlen = 1 };
	}
	peer_do(ctl, "usend 9; sleep 20; uclose");
	say_rc("send", send(fd, "x", 1, 0));
	msleep(60);
	for (int i = 0; i < 3; i++) {
		int n = recvmmsg(fd, m, 4, MSG_DONTWAIT, NULL);
		got += n > 0 ? n : 0;
		refused += n < 0 && errno == ECONNREFUSED;
		other += n < 0 && errno != ECONNREFUSED && errno != EAGAIN;
	}
	printf(" datagrams=%d refused=%d other=%d", got, refused, other);
	peer_do(ctl, "uopen");
	hot(fd, NULL, 0);
	close(fd);
}
