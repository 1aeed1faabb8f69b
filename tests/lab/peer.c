/*
 * peer.c - the other end of the socket tests: runs in the lab's peer namespace, on the kernel only. See peer.h.
 *
 *   peer CONTROL-PATH [ADDRESS]
 *
 * One test at a time; a script is a list of steps separated by ";". C is the number of the connection in the order of accept.
 *   acc            accept a connection              echo C N      N times: read one octet, write one octet
 *   send C N       write N octets                   recv C N      read and check N octets
 *   slow C N       the same in small pieces         eof C         wants the end of the stream
 *   rest C         read and check up to the end     rst C         close with a reset
 *   fin C          shutdown(SHUT_WR)
 *   close C        close                            oob C         one urgent octet
 *   sleep MS       nothing                          err C         wants a reset
 *   uecho N        N times: UDP echo                usend N       UDP datagram of N octets to the last sender
 *   uflood N SIZE  N datagrams of SIZE octets        utos N        IP_TOS of what usend sends from now on
 *   uclose         no UDP socket any more           uopen         it's back
 *   urecv N        wants a datagram of N octets     conn          connect back to the last UDP sender's host, port 7002
 *   lab CMD        hvaccel-lab CMD                  vf present|absent   hvaccel-lab vf-add or vf-remove unless it's so already
 */
#include "peer.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>

#define MAX_CONN 32
#define LIMIT_MS 15000 /* no step may take longer */

static struct {
	int fd;
	uint64_t in, out;
} conn[MAX_CONN];
static int nconn, lfd, ufd = -1, ctl;
static struct sockaddr_in here;
static struct sockaddr_storage ulast;
static socklen_t ulast_len;
static bool vf_absent;
static char err[256];

#define FAIL(...) (snprintf(err, sizeof err, __VA_ARGS__), false)

static bool ready(int fd, short ev)
{
	struct pollfd p[2] = { { .fd = fd, .events = ev }, { .fd = ctl, .events = POLLRDHUP } };
	if (poll(p, 2, LIMIT_MS) <= 0)
		return FAIL("timeout");
	return p[0].revents != 0 || FAIL("test is gone");
}

static bool get(int c, size_t n, size_t piece)
{
	static char buf[65536];
	while (n > 0) {
		size_t want = n < piece ? n : piece;
		if (!ready(conn[c].fd, POLLIN))
			return false;
		ssize_t r = recv(conn[c].fd, buf, want, 0);
		if (r <= 0)
			return FAIL("recv %d: %s, %zu octets missing", c, r == 0 ? "end of stream" : strerror(errno), n);
		if (!peer_check(buf, (size_t)r, conn[c].in))
			return FAIL("recv %d: wrong octets at %llu", c, (unsigned long long)conn[c].in);
		conn[c].in += (uint64_t)r;
		n -= (size_t)r;
		if (piece < sizeof buf)
			msleep(1);
	}
	return true;
}

static bool put(int c, size_t n)
{
	static char buf[65536];
	while (n > 0) {
		size_t len = n < sizeof buf ? n : sizeof buf;
		peer_fill(buf, len, conn[c].out);
		if (!ready(conn[c].fd, POLLOUT))
			return false;
		ssize_t r = send(conn[c].fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r < 0 && errno == EAGAIN)
			continue;
		if (r < 0)
			return FAIL("send %d: %s", c, strerror(errno));
		conn[c].out += (uint64_t)r;
		n -= (size_t)r;
	}
	return true;
}

static void drop(int c)
{
	if (conn[c].fd >= 0)
		close(conn[c].fd);
	conn[c].fd = -1;
}

static bool lab(const char *arg)
{
	char cmd[160];
	snprintf(cmd, sizeof cmd, "hvaccel-lab %s >&2", arg);
	if (system(cmd) != 0)
		return FAIL("%s failed", cmd);
	if (strncmp(arg, "vf-", 3) == 0)
		vf_absent = strncmp(arg, "vf-remove", 9) == 0;
	return true;
}

static bool udp_echo(long n)
{
	char buf[65536];
	for (; n > 0; n--) {
		ulast_len = sizeof ulast;
		if (!ready(ufd, POLLIN))
			return false;
		ssize_t r = recvfrom(ufd, buf, sizeof buf, 0, (void *)&ulast, &ulast_len);
		if (r < 0 || sendto(ufd, buf, (size_t)r, 0, (void *)&ulast, ulast_len) != r)
			return FAIL("udp echo: %s", strerror(errno));
	}
	return true;
}

static bool udp_recv(long n)
{
	char buf[65536];
	ulast_len = sizeof ulast;
	if (!ready(ufd, POLLIN))
		return false;
	ssize_t r = recvfrom(ufd, buf, sizeof buf, 0, (void *)&ulast, &ulast_len);
	return (r == n && peer_check(buf, (size_t)r, 0)) || FAIL("udp recv: %zd octets, not %ld", r, n);
}

static bool udp_send(long n)
{
	char buf[65536];
	peer_fill(buf, (size_t)n, 0);
	return sendto(ufd, buf, (size_t)n, 0, (void *)&ulast, ulast_len) == n || FAIL("udp send: %s", strerror(errno));
}

static bool udp_flood(long n, long size)
{
	for (long i = 0; i < n; i++) {
		if (i % 50 == 49)
			msleep(2); /* the receiver's queue may be full, its ring should not be */
		if (!udp_send(size))
			return false;
	}
	return true;
}

static bool udp_open(bool open)
{
	if (ufd >= 0)
		close(ufd);
	ufd = -1;
	if (!open)
		return true;
	ufd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return bind(ufd, (void *)&here, sizeof here) == 0 || FAIL("udp bind: %s", strerror(errno));
}

static bool step(char *s)
{
	char verb[16] = "", word[64] = "";
	long c = 0, n = 0;
	sscanf(s, "%15s %63s", verb, word);
	sscanf(s, "%*s %ld %ld", &c, &n);
	if (strcmp(verb, "sleep") == 0)
		return msleep(c), true;
	if (strcmp(verb, "lab") == 0)
		return lab(strstr(s, "lab") + 4);
	if (strcmp(verb, "vf") == 0) {
		bool absent = strcmp(word, "absent") == 0;
		if (absent == vf_absent)
			return true;
		bool ok = lab(absent ? "vf-remove" : "vf-add");
		msleep(200); /* for the monitor in the process under test to see it */
		return ok;
	}
	if (strcmp(verb, "uecho") == 0)
		return udp_echo(c);
	if (strcmp(verb, "usend") == 0)
		return udp_send(c);
	if (strcmp(verb, "uflood") == 0)
		return udp_flood(c, n);
	if (strcmp(verb, "utos") == 0)
		return setsockopt(ufd, IPPROTO_IP, IP_TOS, &(int){ (int)c }, sizeof(int)) == 0 || FAIL("utos");
	if (strcmp(verb, "uopen") == 0 || strcmp(verb, "uclose") == 0)
		return udp_open(verb[1] == 'o');
	if (strcmp(verb, "urecv") == 0)
		return udp_recv(c);
	int fd = -1;
	if (strcmp(verb, "acc") == 0) {
		if (!ready(lfd, POLLIN) || (fd = accept(lfd, NULL, NULL)) < 0)
			return err[0] != '\0' ? false : FAIL("accept: %s", strerror(errno));
	} else if (strcmp(verb, "conn") == 0) {
		struct sockaddr_in sa;
		memcpy(&sa, &ulast, sizeof sa);
		sa.sin_port = htons(PEER_PORT + 1);
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(fd, (void *)&sa, sizeof sa) != 0) {
			close(fd);
			return FAIL("connect: %s", strerror(errno));
		}
	}
	if (fd >= 0) {
		if (nconn == MAX_CONN) {
			close(fd);
			return FAIL("too many connections");
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
		conn[nconn].fd = fd;
		conn[nconn].in = conn[nconn].out = 0;
		nconn++;
		return true;
	}
	if (c < 0 || c >= nconn || conn[c].fd < 0)
		return FAIL("%s: no connection %ld", verb, c);
	if (strcmp(verb, "echo") == 0) {
		while (n-- > 0)
			if (!get((int)c, 1, 1 << 16) || !put((int)c, 1))
				return false;
		return true;
	}
	if (strcmp(verb, "send") == 0)
		return put((int)c, (size_t)n);
	if (strcmp(verb, "recv") == 0)
		return get((int)c, (size_t)n, 65536);
	if (strcmp(verb, "slow") == 0)
		return get((int)c, (size_t)n, 4000);
	char x;
	if (strcmp(verb, "eof") == 0)
		return ready(conn[c].fd, POLLIN) && (recv(conn[c].fd, &x, 1, 0) == 0 || FAIL("no end of stream"));
	if (strcmp(verb, "rest") == 0) {
		ssize_t r;
		while (ready(conn[c].fd, POLLIN) && (r = recv(conn[c].fd, &x, 1, 0)) != 0)
			if (r < 0 || x != peer_octet(conn[c].in++))
				return FAIL("rest: %s", r < 0 ? strerror(errno) : "wrong octet");
		return err[0] == '\0';
	}
	if (strcmp(verb, "err") == 0)
		return ready(conn[c].fd, POLLIN) && ((recv(conn[c].fd, &x, 1, 0) == -1 && errno == ECONNRESET) || FAIL("no reset"));
	if (strcmp(verb, "oob") == 0)
		return send(conn[c].fd, "!", 1, MSG_OOB) == 1 || FAIL("oob: %s", strerror(errno));
	if (strcmp(verb, "fin") == 0)
		return shutdown(conn[c].fd, SHUT_WR) == 0 || FAIL("shutdown: %s", strerror(errno));
	if (strcmp(verb, "rst") == 0)
		setsockopt(conn[c].fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	else if (strcmp(verb, "close") != 0)
		return FAIL("unknown step %s", verb);
	drop((int)c);
	return true;
}

static void reply(const char *s) { send(ctl, s, strlen(s), MSG_NOSIGNAL); }

static void serve(void)
{
	char script[1024];
	ssize_t n;
	while ((n = recv(ctl, script, sizeof script - 1, 0)) > 0) {
		script[n] = '\0';
		reply("A");
		err[0] = '\0';
		bool ok = true;
		char *save = NULL;
		for (char *s = strtok_r(script, ";", &save); ok && s != NULL; s = strtok_r(NULL, ";", &save)) {
			ok = step(s);
			if (!ok) {
				char text[256];
				snprintf(text, sizeof text, "E%s: %s", s, err);
				reply(text);
			}
		}
		if (ok)
			reply("D");
	}
	for (int c = 0; c < nconn; c++)
		drop(c);
	nconn = 0;
	/* what an aborted test left behind must not reach the next one */
	struct pollfd p = { .fd = lfd, .events = POLLIN };
	while (poll(&p, 1, 0) > 0)
		close(accept(lfd, NULL, NULL));
	if (ufd < 0)
		udp_open(true);
	setsockopt(ufd, IPPROTO_IP, IP_TOS, &(int){ 0 }, sizeof(int));
	while (recv(ufd, script, sizeof script, MSG_DONTWAIT) >= 0)
		;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: peer CONTROL-PATH [ADDRESS]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	inet_pton(AF_INET, argc > 2 ? argv[2] : PEER_ADDR, &sa.sin_addr);
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	snprintf(un.sun_path, sizeof un.sun_path, "%s", argv[1]);
	unlink(argv[1]);
	lfd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	here = sa;
	int cl = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(lfd, (void *)&sa, sizeof sa) != 0 || listen(lfd, 16) != 0 || !udp_open(true) || bind(cl, (void *)&un, sizeof un) != 0 ||
	    listen(cl, 16) != 0) {
		perror("peer");
		return 1;
	}
	while ((ctl = accept(cl, NULL, NULL)) >= 0) {
		serve();
		close(ctl);
	}
	return 0;
}
