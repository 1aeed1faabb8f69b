/* calls_udp.c - UDP: connected or not, lengths, flags, control messages, errors. Conventions: drive.h. */
#include "calls.h"

#include <net/if.h>
#include <sys/ioctl.h>

static int udp(bool connected)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	char b[16];
	inet_pton(AF_INET, peer_addr, &sa.sin_addr);
	peer_do(ctl, "vf present");
	if (connected)
		say_rc("connect", connect(fd, (void *)&sa, sizeof sa));
	else
		say_rc("bind", bind(fd, (void *)&(struct sockaddr_in){ .sin_family = AF_INET }, sizeof sa));
	peer_start(ctl, "uecho 200");
	for (int i = 0; i < 200; i++) {
		if (i % 20 == 19)
			msleep(15); /* see heat_up() */
		ssize_t w = connected ? send(fd, "abc", 3, 0) : sendto(fd, "abc", 3, 0, (void *)&sa, sizeof sa);
		ssize_t r = recv(fd, b, sizeof b, 0);
		if (w != 3 || r != 3) {
			printf(" warm-up failed");
			break;
		}
	}
	peer_done(ctl);
	return fd;
}

static void wait_in(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	poll(&p, 1, 10000);
}

static void said(const char *what, ssize_t r, const char *b, size_t n)
{
	say_rc(what, r);
	if (r > 0)
		printf("%s", peer_check(b, (size_t)r < n ? (size_t)r : n, 0) ? "" : " WRONG OCTETS");
}

void c_udp(void)
{
	int fd = udp(true);
	char b[2000];
	struct sockaddr_in from;
	socklen_t l = sizeof from;
	peer_fill(b, sizeof b, 0);
	peer_start(ctl, "urecv 1000; urecv 0; usend 100; usend 0; usend 1400; usend 30");
	say_rc("send", send(fd, b, 1000, 0));
	say_rc("send0", send(fd, b, 0, 0));
	peer_done(ctl);
	wait_in(fd);
	int q = -1;
	ioctl(fd, FIONREAD, &q);
	printf(" fionread=%d", q);
	said("peek", recv(fd, b, sizeof b, MSG_PEEK), b, sizeof b);
	said("trunc", recv(fd, b, 10, MSG_TRUNC), b, 10);
	said("zero", recvfrom(fd, b, sizeof b, 0, (void *)&from, &l), b, sizeof b);
	printf(" port=%d len=%u", ntohs(from.sin_port), l);
	struct iovec v[2] = { { b, 100 }, { b + 100, 200 } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
	said("recvmsg", recvmsg(fd, &m, 0), b, 300);
	printf(" flags=%x", m.msg_flags);
	said("recv0", recv(fd, b, 0, 0), b, 0); /* a datagram is thrown away by that */
	say_rc("none", recv(fd, b, sizeof b, MSG_DONTWAIT));
	close(fd);
}

void c_udp_unconnected(void)
{
	int fd = udp(false);
	char b[64], t[64];
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) }, from;
	socklen_t l = sizeof from;
	inet_pton(AF_INET, peer_addr, &sa.sin_addr);
	peer_fill(b, sizeof b, 0);
	say_rc("send", send(fd, b, 5, 0));
	peer_start(ctl, "urecv 40; usend 50; usend 6");
	say_rc("sendto", sendto(fd, b, 40, 0, (void *)&sa, sizeof sa));
	peer_done(ctl);
	said("recvfrom", recvfrom(fd, b, sizeof b, 0, (void *)&from, &l), b, sizeof b);
	printf(" %s:%d len=%u", inet_ntop(AF_INET, &from.sin_addr, t, sizeof t), ntohs(from.sin_port), l);
	l = 4;
	said("short-name", recvfrom(fd, b, sizeof b, 0, (void *)&from, &l), b, sizeof b);
	printf(" len=%u", l);
	say_rc("short-addr", sendto(fd, b, 5, 0, (void *)&sa, 3));
	sa.sin_family = 77;
	say_rc("family", sendto(fd, b, 5, 0, (void *)&sa, sizeof sa));
	sa.sin_family = AF_INET;
	sa.sin_port = 0;
	say_rc("port0", sendto(fd, b, 5, 0, (void *)&sa, sizeof sa));
	sa.sin_port = htons(PEER_PORT);
	inet_pton(AF_INET, "255.255.255.255", &sa.sin_addr);
	say_rc("broadcast", sendto(fd, b, 5, 0, (void *)&sa, sizeof sa));
	inet_pton(AF_INET, "203.0.113.1", &sa.sin_addr);
	say_rc("no-route", sendto(fd, b, 5, 0, (void *)&sa, sizeof sa));
	close(fd);
}

void c_udp_big(void)
{
	int fd = udp(true);
	static char b[70000];
	static const int sizes[] = { 1472, 1473, 4000, 9000, 65000 };
	peer_fill(b, sizeof b, 0);
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		peer_start(ctl, "urecv %d; usend %d", sizes[i], sizes[i]);
		peer_fill(b, sizeof b, 0);
		say_rc("send", send(fd, b, (size_t)sizes[i], 0));
		if (peer_done(ctl))
			said("recv", recv(fd, b, sizeof b, 0), b, sizeof b);
	}
	say_rc("too-big", send(fd, b, 65508, 0));
	say_rc("too-big", send(fd, b, sizeof b, 0));
	close(fd);
}

void c_udp_mmsg(void)
{
	int fd = udp(true);
	char b[4][32];
	struct iovec v[4];
	struct mmsghdr m[4];
	memset(m, 0, sizeof m);
	for (int i = 0; i < 4; i++) {
		peer_fill(b[i], sizeof b[i], 0);
		v[i] = (struct iovec){ b[i], (size_t)(10 + i) };
		m[i].msg_hdr.msg_iov = &v[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	peer_start(ctl, "urecv 10; urecv 11; urecv 12; urecv 13; usend 20; usend 21; usend 22");
	say_rc("sendmmsg", sendmmsg(fd, m, 4, 0));
	printf(" %u,%u,%u,%u %s", m[0].msg_len, m[1].msg_len, m[2].msg_len, m[3].msg_len, peer_done(ctl) ? "ok" : "failed");
	msleep(50);
	for (int i = 0; i < 4; i++)
		v[i].iov_len = 32;
	struct timespec ts = { 5, 0 };
	say_rc("recvmmsg", recvmmsg(fd, m, 3, 0, &ts));
	printf(" %u,%u,%u", m[0].msg_len, m[1].msg_len, m[2].msg_len);
	say_rc("recvmmsg", recvmmsg(fd, m, 4, MSG_DONTWAIT, NULL));
	peer_start(ctl, "sleep 30; usend 9");
	say_rc("waitforone", recvmmsg(fd, m, 4, MSG_WAITFORONE, NULL));
	peer_done(ctl);
	close(fd);
}

/* Sender, interface, TTL, TOS as control messages; too little room for them. */
void c_udp_cmsg(void)
{
	int fd = udp(true), one = 1;
	char b[64], c[256], t[64];
	setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
	setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &one, sizeof one);
	setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &one, sizeof one);
	peer_do(ctl, "usend 9; usend 8");
	struct iovec v = { b, sizeof b };
	struct sockaddr_in from;
	struct msghdr m = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c };
	said("recvmsg", recvmsg(fd, &m, 0), b, sizeof b);
	printf(" flags=%x from %s", m.msg_flags, inet_ntop(AF_INET, &from.sin_addr, t, sizeof t));
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h != NULL; h = CMSG_NXTHDR(&m, h)) {
		printf(" cmsg(%d,%d,%zu)", h->cmsg_level, h->cmsg_type, (size_t)h->cmsg_len);
		if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo *pi = (void *)CMSG_DATA(h);
			char name[IF_NAMESIZE] = "?";
			printf(" if=%s", if_indextoname((unsigned)pi->ipi_ifindex, name) != NULL ? name : "?");
			printf(" dst=%s", inet_ntop(AF_INET, &pi->ipi_addr, t, sizeof t));
		} else if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_TTL) {
			printf(" ttl=%d", *(int *)(void *)CMSG_DATA(h));
		}
	}
	m.msg_controllen = 20;
	said("small", recvmsg(fd, &m, 0), b, sizeof b);
	printf(" flags=%x", m.msg_flags);
	close(fd);
}

void c_udp_errors(void)
{
	int fd = udp(true);
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(9) };
	char b[16];
	inet_pton(AF_INET, peer_addr, &sa.sin_addr);
	say_rc("reconnect", connect(fd, (void *)&sa, sizeof sa)); /* nobody there: ICMP port unreachable */
	say_rc("send", send(fd, "x", 1, 0));
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n = poll(&p, 1, 5000);
	say_ready("poll", n, (unsigned)p.revents);
	say_rc("recv", recv(fd, b, sizeof b, MSG_DONTWAIT));
	say_rc("recv", recv(fd, b, sizeof b, MSG_DONTWAIT));
	say_rc("send", send(fd, "x", 1, 0));
	poll(&p, 1, 5000);
	say_rc("send", send(fd, "x", 1, 0));
	struct sockaddr un = { .sa_family = AF_UNSPEC };
	say_rc("disconnect", connect(fd, &un, sizeof un));
	say_rc("send", send(fd, "x", 1, 0));
	socklen_t l = sizeof sa;
	say_rc("getpeername", getpeername(fd, (void *)&sa, &l));
	sa = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	inet_pton(AF_INET, peer_addr, &sa.sin_addr);
	say_rc("connect", connect(fd, (void *)&sa, sizeof sa));
	peer_start(ctl, "uecho 50");
	for (int i = 0; i < 50; i++)
		if (send(fd, "abc", 3, 0) != 3 || recv(fd, b, sizeof b, 0) != 3)
			printf(" dead");
	printf(" %s", peer_done(ctl) ? "ok" : "failed");
	say_rc("shutdown", shutdown(fd, SHUT_WR));
	say_rc("send", send(fd, "x", 1, MSG_NOSIGNAL));
	say_rc("shutdown", shutdown(fd, SHUT_RD));
	say_rc("recv", recv(fd, b, sizeof b, 0));
	close(fd);
}

void c_udp_efault(void)
{
	int fd = udp(true);
	void *volatile nowhere = (void *)8;
	char b[32];
	say_rc("send", send(fd, nowhere, 10, 0));
	peer_do(ctl, "usend 9; usend 8");
	wait_in(fd);
	say_rc("recv", recv(fd, nowhere, 10, 0)); /* the datagram is lost by that, on the kernel as well */
	msleep(30);
	said("recv", recv(fd, b, sizeof b, MSG_DONTWAIT), b, sizeof b);
	said("recv", recv(fd, b, sizeof b, MSG_DONTWAIT), b, sizeof b);
	close(fd);
}
