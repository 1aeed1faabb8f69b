/* calls_data.c - moving octets: vectors, flags, shutdown, resets, bad pointers, close with data on its way. Conventions: drive.h. */
#include "calls.h"

#include <fcntl.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static _Atomic int pipes;

static void on_pipe(int sig)
{
	(void)sig;
	pipes++;
}

static void wait_in(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	poll(&p, 1, 10000);
}

/* Until n octets (with the FIN, if any) can be read at once. */
static void wait_queue(int fd, int n)
{
	int q = 0;
	for (int i = 0; i < 500 && ioctl(fd, FIONREAD, &q) == 0 && q < n; i++)
		msleep(10);
}

void c_iov(void)
{
	struct sock s = tcp_new();
	char b[64];
	struct iovec v[4] = { { b, 3 }, { b + 3, 0 }, { b + 3, 10 }, { b + 13, 1 } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 4 };
	peer_fill(b, 14, s.out);
	say_rc("sendmsg", sendmsg(s.fd, &m, 0));
	s.out += 14;
	peer_fill(b, 14, s.out);
	say_rc("writev", writev(s.fd, v, 4));
	s.out += 14;
	printf(" %s", peer_do(ctl, "recv 0 28; send 0 10") ? "ok" : "failed");
	memset(b, 0, sizeof b);
	wait_queue(s.fd, 10);
	m.msg_name = &(struct sockaddr_storage){ 0 };
	m.msg_namelen = sizeof(struct sockaddr_storage);
	ssize_t r = recvmsg(s.fd, &m, 0);
	say_in("recvmsg", &s, r, b, true);
	printf(" flags=%x namelen=%u", m.msg_flags, m.msg_namelen);
	peer_do(ctl, "send 0 20");
	wait_queue(s.fd, 20);
	r = readv(s.fd, v, 4);
	say_in("readv", &s, r, b, true);
	r = readv(s.fd, v, 4);
	say_in("readv", &s, r, b, true);
	say_rc("writev0", writev(s.fd, v, 0));
	static struct iovec many[IOV_MAX + 1];
	volatile int negative = -1;
	say_rc("writev-many", writev(s.fd, many, IOV_MAX + 1));
	say_rc("writev-neg", writev(s.fd, v, negative));
	m.msg_iov = many;
	m.msg_iovlen = IOV_MAX + 1;
	say_rc("sendmsg-many", sendmsg(s.fd, &m, 0));
	m.msg_iovlen = 0;
	say_rc("sendmsg0", sendmsg(s.fd, &m, 0));
	still_alive(&s);
}

void c_mmsg(void)
{
	struct sock s = tcp_new();
	char b[64];
	struct iovec v[3] = { { b, 5 }, { b + 5, 6 }, { b + 11, 7 } };
	struct mmsghdr m[3] = { { .msg_hdr = { .msg_iov = &v[0], .msg_iovlen = 1 } },
				{ .msg_hdr = { .msg_iov = &v[1], .msg_iovlen = 1 } },
				{ .msg_hdr = { .msg_iov = &v[2], .msg_iovlen = 1 } } };
	peer_fill(b, 18, s.out);
	say_rc("sendmmsg", sendmmsg(s.fd, m, 3, 0));
	printf(" %u,%u,%u", m[0].msg_len, m[1].msg_len, m[2].msg_len);
	s.out += 18;
	peer_do(ctl, "recv 0 18; send 0 13");
	wait_queue(s.fd, 13);
	memset(b, 0, sizeof b);
	say_rc("recvmmsg", recvmmsg(s.fd, m, 3, MSG_DONTWAIT, NULL));
	printf(" %u,%u,%u %s", m[0].msg_len, m[1].msg_len, m[2].msg_len, peer_check(b, 13, s.in) ? "right" : "WRONG");
	s.in += 13;
	say_rc("recvmmsg", recvmmsg(s.fd, m, 3, MSG_DONTWAIT, NULL));
	peer_start(ctl, "sleep 30; send 0 5");
	say_rc("waitforone", recvmmsg(s.fd, m, 3, MSG_WAITFORONE, NULL));
	s.in += 5;
	peer_done(ctl);
	say_rc("sendmmsg0", sendmmsg(s.fd, m, 0, 0));
	still_alive(&s);
}

/* Calls that make no sense on a socket. */
void c_espipe(void)
{
	struct sock s = tcp_new();
	char b[8] = "x";
	struct iovec v = { b, 1 };
	say_rc("lseek", lseek(s.fd, 0, SEEK_CUR));
	say_rc("pread", pread(s.fd, b, 1, 0));
	say_rc("pwrite", pwrite(s.fd, b, 1, 0));
	say_rc("preadv", preadv(s.fd, &v, 1, 0));
	say_rc("pwritev", pwritev(s.fd, &v, 1, 0));
	say_rc("preadv2", preadv2(s.fd, &v, 1, -1, RWF_NOWAIT));
	say_rc("fsync", fsync(s.fd));
	say_rc("ftruncate", ftruncate(s.fd, 0));
	say_rc("mmap", mmap(NULL, 4096, PROT_READ, MAP_SHARED, s.fd, 0) == MAP_FAILED ? -1 : 0);
	say_rc("isatty", isatty(s.fd) != 0 ? 1 : -1);
	still_alive(&s);
}

void c_zero(void)
{
	struct sock s = tcp_new();
	char b[8];
	struct iovec v = { b, 0 };
	say_rc("send", send(s.fd, b, 0, 0));
	say_rc("write", write(s.fd, b, 0));
	say_rc("writev", writev(s.fd, &v, 1));
	say_rc("recv-none", recv(s.fd, b, 0, MSG_DONTWAIT));
	say_rc("read-none", read(s.fd, b, 0));
	peer_do(ctl, "send 0 4");
	wait_in(s.fd);
	say_rc("recv", recv(s.fd, b, 0, MSG_DONTWAIT));
	get(&s, 4);
	still_alive(&s);
}

/* TCP: MSG_TRUNC throws away. */
void c_trunc(void)
{
	struct sock s = tcp_new();
	char b[16] = "untouched";
	peer_do(ctl, "send 0 12");
	wait_queue(s.fd, 12);
	ssize_t r = recv(s.fd, b, 5, MSG_TRUNC);
	say_rc("trunc", r);
	printf(" %s", b);
	s.in += 5;
	r = recv(s.fd, NULL, 3, MSG_TRUNC);
	say_rc("trunc-null", r);
	s.in += 3;
	get(&s, 4);
	still_alive(&s);
}

void c_flags(void)
{
	struct sock s = tcp_new();
	char b[32];
	say_rc("errqueue", recv(s.fd, b, sizeof b, MSG_ERRQUEUE));
	say_rc("oob-none", recv(s.fd, b, 1, MSG_OOB));
	peer_fill(b, 10, s.out);
	say_rc("more", send(s.fd, b, 4, MSG_MORE));
	say_rc("send", send(s.fd, b + 4, 3, 0));
	say_rc("eor", send(s.fd, b + 7, 2, MSG_EOR));
	say_rc("dontroute", send(s.fd, b + 9, 1, MSG_DONTROUTE));
	printf(" %s", peer_do(ctl, "recv 0 10") ? "ok" : "failed");
	s.out += 10;
	setsockopt(s.fd, IPPROTO_TCP, TCP_CORK, &(int){ 1 }, sizeof(int));
	put(&s, 100);
	put(&s, 200);
	setsockopt(s.fd, IPPROTO_TCP, TCP_CORK, &(int){ 0 }, sizeof(int));
	printf(" %s", peer_do(ctl, "recv 0 300") ? "ok" : "failed");
	say_rc("unknown-flag", send(s.fd, "", 0, 0x800000));
	still_alive(&s);
}

/* An invalid address costs nothing: no octet of the stream is lost, none too many is sent. */
void c_efault(void)
{
	struct sock s = tcp_new();
	char *bad = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), b[32];
	mprotect(bad + 4096, 4096, PROT_NONE);
	say_rc("send", send(s.fd, bad + 4096, 10, 0));
	void *volatile nowhere = (void *)8;
	say_rc("write", write(s.fd, nowhere, 10));
	peer_do(ctl, "send 0 10");
	wait_queue(s.fd, 10);
	say_rc("recv", recv(s.fd, bad + 4096, 10, 0));
	say_rc("peek", recv(s.fd, nowhere, 10, MSG_PEEK));
	struct iovec v[2] = { { b, 4 }, { bad + 4096, 6 } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
	say_rc("recvmsg-null", recvmsg(s.fd, NULL, 0));
	say_rc("recvmsg-bad", recvmsg(s.fd, (void *)(bad + 4096), 0));
	m.msg_iov = (void *)(bad + 4096);
	say_rc("recvmsg-badiov", recvmsg(s.fd, &m, 0));
	say_rc("readv-badiov", readv(s.fd, (void *)(bad + 4096), 2));
	say_rc("writev-badiov", writev(s.fd, (void *)(bad + 4096), 2));
	get(&s, 10);
	say_rc("poll", poll((void *)(bad + 4096), 1, 0));
	int ep = epoll_create1(0);
	say_rc("epoll_ctl", epoll_ctl(ep, EPOLL_CTL_ADD, s.fd, NULL));
	say_rc("epoll_wait", epoll_wait(ep, (void *)(bad + 4096), 0, 0));
	say_rc("getsockname", getsockname(s.fd, NULL, NULL));
	say_rc("setsockopt", setsockopt(s.fd, IPPROTO_TCP, TCP_NODELAY, (void *)(bad + 4096), sizeof(int)));
	say_rc("getsockopt", getsockopt(s.fd, IPPROTO_TCP, TCP_NODELAY, (void *)(bad + 4096), &(socklen_t){ 4 }));
	still_alive(&s);
}

/* The same before anything was sent, received or moved. */
void c_efault_cold(void)
{
	char *bad = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = socket(AF_INET, SOCK_STREAM, 0), ep = epoll_create1(0);
	struct epoll_event ev = { .events = EPOLLIN };
	struct timespec now = { 0, 0 };
	say_rc("epoll_ctl", epoll_ctl(ep, EPOLL_CTL_ADD, fd, (void *)bad));
	say_rc("epoll_ctl", epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
	say_rc("epoll_wait", epoll_wait(ep, (void *)bad, 1, 0));
	say_rc("poll", poll((void *)bad, 1, 0));
	say_rc("ppoll", ppoll((void *)bad, 1, &now, NULL));
	say_rc("select", select(fd + 1, (void *)bad, NULL, NULL, &(struct timeval){ 0, 0 }));
	say_rc("send", send(fd, bad, 10, MSG_NOSIGNAL));
	say_rc("close", close(fd) | close(ep));
}

void c_shutdown(void)
{
	struct sock s = tcp_new();
	char b[8];
	signal(SIGPIPE, on_pipe);
	say_rc("how", shutdown(s.fd, 7));
	say_rc("wr", shutdown(s.fd, SHUT_WR));
	printf(" eof=%s", peer_do(ctl, "eof 0") ? "ok" : "failed");
	say_rc("send", send(s.fd, "x", 1, 0));
	printf(" signals=%d", pipes);
	say_rc("send-quiet", send(s.fd, "x", 1, MSG_NOSIGNAL));
	say_rc("write", write(s.fd, "x", 1));
	printf(" signals=%d", pipes);
	/* a long answer after our FIN */
	peer_start(ctl, "send 0 300000; fin 0");
	get(&s, 300000);
	peer_done(ctl);
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("end", &s, r, b, true);
	say_rc("again", shutdown(s.fd, SHUT_WR));
	say_rc("close", close(s.fd));
	say_rc("close", close(s.fd));
}

void c_shutdown_rd(void)
{
	struct sock s = tcp_new();
	char b[8];
	peer_do(ctl, "send 0 5");
	wait_queue(s.fd, 5);
	say_rc("rd", shutdown(s.fd, SHUT_RD));
	get(&s, 5);
	say_rc("recv", recv(s.fd, b, sizeof b, 0));
	put(&s, 9);
	printf(" %s", peer_do(ctl, "recv 0 9") ? "ok" : "failed");
	say_rc("rdwr", shutdown(s.fd, SHUT_RDWR));
	printf(" eof=%s", peer_do(ctl, "eof 0") ? "ok" : "failed");
	struct pollfd p = { .fd = s.fd, .events = POLLIN | POLLOUT | POLLRDHUP };
	int n = poll(&p, 1, 1000);
	say_ready("poll", n, (unsigned)p.revents);
	close(s.fd);
}

void c_reset(void)
{
	struct sock s = tcp_new();
	char b[8];
	signal(SIGPIPE, on_pipe);
	peer_do(ctl, "rst 0");
	struct pollfd p = { .fd = s.fd, .events = POLLIN };
	poll(&p, 1, 5000);
	say_rc("send", send(s.fd, "x", 1, 0));
	printf(" signals=%d", pipes);
	say_rc("send", send(s.fd, "x", 1, 0));
	printf(" signals=%d", pipes);
	say_rc("recv", recv(s.fd, b, 8, 0));
	struct sockaddr_in sa;
	socklen_t l = sizeof sa;
	say_rc("getpeername", getpeername(s.fd, (void *)&sa, &l));
	close(s.fd);
	/* unread data and a reset: what was there stays readable? */
	s = tcp_new();
	peer_do(ctl, "send 1 5; sleep 30; rst 1");
	p.fd = s.fd;
	p.events = 0;
	poll(&p, 1, 5000);
	ssize_t r = recv(s.fd, b, 8, 0);
	say_in("recv", &s, r, b, true);
	r = recv(s.fd, b, 8, 0);
	say_in("recv", &s, r, b, true);
	close(s.fd);
}

/* A reset in the middle of a call that has moved octets: it tells of these, the next one of the reset. */
void c_reset_midway(void)
{
	static char b[BIG];
	struct sock s = tcp_new();
	peer_fill(b, sizeof b, s.out);
	peer_start(ctl, "sleep 100; rst 0");
	ssize_t r = send(s.fd, b, sizeof b, MSG_NOSIGNAL);
	printf(" send=%s", r > 0 && r < (ssize_t)sizeof b ? "part" : err_text(errno));
	peer_done(ctl);
	say_rc("send", send(s.fd, b, 1, MSG_NOSIGNAL));
	say_rc("send", send(s.fd, b, 1, MSG_NOSIGNAL));
	close(s.fd);
	for (int i = 1; i < 3; i++) {
		int e = -1;
		s = tcp_new();
		peer_start(ctl, "send %d 5; sleep 60; rst %d", i, i);
		r = recv(s.fd, b, 10, MSG_WAITALL);
		say_in("recv", &s, r, b, true);
		peer_done(ctl);
		if (i == 1)
			say_rc("recv", recv(s.fd, b, 10, 0));
		getsockopt(s.fd, SOL_SOCKET, SO_ERROR, &e, &(socklen_t){ sizeof e });
		printf(" error=%s", err_text(e));
		say_rc("recv", recv(s.fd, b, 10, 0));
		close(s.fd);
	}
}

/* The kernel finishes what close() leaves. */
void c_close_unsent(void)
{
	struct sock s = tcp_new();
	static char b[65536];
	uint64_t start = s.out;
	for (int i = 0; i < 200; i++) {
		peer_fill(b, sizeof b, s.out);
		ssize_t r = send(s.fd, b, sizeof b, MSG_DONTWAIT);
		if (r < 0)
			break;
		s.out += (uint64_t)r;
	}
	say_rc("close", close(s.fd));
	printf(" peer=%s", peer_do(ctl, "sleep 50; recv 0 %llu; eof 0", (unsigned long long)(s.out - start)) ? "all and end" : "failed");
}

void c_linger(void)
{
	struct sock s = tcp_new();
	setsockopt(s.fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	say_rc("close", close(s.fd));
	printf(" reset=%s", peer_do(ctl, "err 0") ? "ok" : "failed");
	s = tcp_new();
	setsockopt(s.fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 10 }, sizeof(struct linger));
	put(&s, 100000);
	peer_start(ctl, "sleep 30; recv 1 100000; eof 1");
	say_rc("close", close(s.fd));
	printf(" peer=%s", peer_done(ctl) ? "all and end" : "failed");
	/* unread data: the peer must hear of it by a reset */
	s = tcp_new();
	peer_do(ctl, "send 2 5");
	wait_queue(s.fd, 5);
	say_rc("close", close(s.fd));
	printf(" reset=%s", peer_do(ctl, "err 2") ? "ok" : "failed");
}

void c_oob(void)
{
	struct sock s = tcp_new();
	char b[16];
	int at = -1;
	struct pollfd p = { .fd = s.fd, .events = POLLPRI };
	peer_start(ctl, "send 0 4; sleep 20; oob 0; sleep 20; send 0 4");
	int n = poll(&p, 1, 10000);
	say_ready("poll", n, (unsigned)p.revents);
	peer_done(ctl);
	say_rc("oob", recv(s.fd, b, 1, MSG_OOB));
	printf(" %c", b[0]);
	ssize_t r = recv(s.fd, b, 16, 0); /* ends at the mark */
	say_in("recv", &s, r, b, true);
	say_rc("sioc", ioctl(s.fd, SIOCATMARK, &at));
	printf(" at=%d", at);
	wait_in(s.fd);
	r = recv(s.fd, b, 16, 0);
	say_in("recv", &s, r, b, true);
	peer_start(ctl, "recv 0 3");
	put(&s, 3);
	peer_done(ctl);
	say_rc("send-oob", send(s.fd, "!", 1, MSG_OOB));
	msleep(30);
	still_alive(&s);
}

void c_ioctl(void)
{
	struct sock s = tcp_new();
	int q = -1, at = -1;
	say_rc("fionread", ioctl(s.fd, FIONREAD, &q));
	printf(" %d", q);
	peer_do(ctl, "send 0 12");
	wait_queue(s.fd, 12);
	say_rc("fionread", ioctl(s.fd, FIONREAD, &q));
	printf(" %d", q);
	get(&s, 5);
	ioctl(s.fd, FIONREAD, &q);
	printf(" %d", q);
	get(&s, 7);
	put(&s, 10);
	peer_do(ctl, "recv 0 10");
	for (int i = 0; i < 500 && ioctl(s.fd, TIOCOUTQ, &q) == 0 && q != 0; i++)
		msleep(10); /* the acknowledgement */
	printf(" outq=%d", q);
	say_rc("atmark", ioctl(s.fd, SIOCATMARK, &at));
	printf(" %d", at);
	say_rc("fionbio", ioctl(s.fd, FIONBIO, &(int){ 1 }));
	char c;
	say_rc("recv", recv(s.fd, &c, 1, 0));
	printf(" nonblock=%d", (fcntl(s.fd, F_GETFL) & O_NONBLOCK) != 0);
	say_rc("fionbio", ioctl(s.fd, FIONBIO, &(int){ 0 }));
	printf(" nonblock=%d", (fcntl(s.fd, F_GETFL) & O_NONBLOCK) != 0);
	say_rc("unknown", ioctl(s.fd, 0x12345678, &q));
	still_alive(&s);
}

void c_sendfile(void)
{
	struct sock s = tcp_new();
	FILE *f = tmpfile();
	char b[5000];
	peer_fill(b, sizeof b, s.out);
	fwrite(b, 1, sizeof b, f);
	fflush(f);
	off_t off = 0;
	say_rc("sendfile", sendfile(s.fd, fileno(f), &off, 2000));
	printf(" off=%ld", (long)off);
	say_rc("more-than-file", sendfile(s.fd, fileno(f), &off, 100000));
	printf(" off=%ld", (long)off);
	say_rc("at-end", sendfile(s.fd, fileno(f), &off, 10));
	s.out += 5000;
	printf(" %s", peer_do(ctl, "recv 0 5000") ? "ok" : "failed");
	lseek(fileno(f), (off_t)(26 - 5000 % 26) % 26, SEEK_SET); /* continue the alphabet */
	peer_fill(b, sizeof b, s.out);
	rewind(f);
	fwrite(b, 1, 1000, f);
	fflush(f);
	lseek(fileno(f), 0, SEEK_SET);
	say_rc("position", sendfile(s.fd, fileno(f), NULL, 1000));
	printf(" pos=%ld", (long)lseek(fileno(f), 0, SEEK_CUR));
	s.out += 1000;
	printf(" %s", peer_do(ctl, "recv 0 1000") ? "ok" : "failed");
	fclose(f);
	still_alive(&s);
}

void c_splice(void)
{
	struct sock s = tcp_new();
	int p[2];
	char b[64];
	if (pipe(p) != 0)
		return;
	peer_start(ctl, "sleep 30; send 0 20");
	ssize_t r = splice(s.fd, NULL, p[1], NULL, 20, 0);
	say_rc("splice-in", r);
	peer_done(ctl);
	while (r > 0 && r < 20) {
		ssize_t k = splice(s.fd, NULL, p[1], NULL, (size_t)(20 - r), 0);
		if (k <= 0)
			break;
		r += k;
	}
	r = read(p[0], b, sizeof b);
	say_in("pipe", &s, r, b, true);
	peer_fill(b, 30, s.out);
	if (write(p[1], b, 30) != 30)
		return;
	say_rc("splice-out", splice(p[0], NULL, s.fd, NULL, 30, 0));
	s.out += 30;
	printf(" %s", peer_do(ctl, "recv 0 30") ? "ok" : "failed");
	fcntl(s.fd, F_SETFL, O_NONBLOCK);
	say_rc("empty", splice(s.fd, NULL, p[1], NULL, 20, SPLICE_F_NONBLOCK));
	fcntl(s.fd, F_SETFL, 0);
	struct iovec v = { b, 26 };
	peer_fill(b, 26, s.out);
	say_rc("vmsplice", vmsplice(p[1], &v, 1, 0));
	say_rc("splice-out", splice(p[0], NULL, s.fd, NULL, 26, 0));
	s.out += 26;
	printf(" %s", peer_do(ctl, "recv 0 26") ? "ok" : "failed");
	still_alive(&s);
}

void c_stdio(void)
{
	struct sock s = tcp_new();
	char b[64], line[64];
	FILE *f = fdopen(dup(s.fd), "r+");
	peer_fill(b, 26, s.out);
	b[26] = '\0';
	setvbuf(f, NULL, _IOFBF, 4096);
	say_rc("fprintf", fprintf(f, "%s", b));
	say_rc("fflush", fflush(f));
	s.out += 26;
	printf(" %s", peer_do(ctl, "recv 0 26") ? "ok" : "failed");
	peer_fill(b, 26, s.out);
	b[26] = '\0';
	say_rc("dprintf", dprintf(s.fd, "%s", b));
	s.out += 26;
	printf(" %s", peer_do(ctl, "recv 0 26; send 0 20") ? "ok" : "failed");
	size_t n = fread(line, 1, 20, f);
	say_in("fread", &s, (ssize_t)n, line, true);
	say_rc("fclose", fclose(f));
	still_alive(&s);
}

/* The C library's own way to the kernel for everything it has no name for. */
void c_syscall(void)
{
	struct sock s = tcp_new();
	char b[32];
	peer_fill(b, 20, s.out);
	say_rc("write", syscall(SYS_write, s.fd, b, 10));
	say_rc("sendto", syscall(SYS_sendto, s.fd, b + 10, 10, 0, NULL, 0));
	s.out += 20;
	printf(" %s", peer_do(ctl, "recv 0 20; send 0 10") ? "ok" : "failed");
	wait_queue(s.fd, 10);
	ssize_t r = syscall(SYS_read, s.fd, b, 10);
	say_in("read", &s, r, b, true);
	say_rc("read-bad", syscall(SYS_read, -1, b, 10));
	still_alive(&s);
}

/* Many octets, odd sizes, both ways at once. */
static void *reader(void *arg)
{
	struct sock *s = arg;
	static char b[70000];
	uint64_t end = s->in + 6000000;
	bool right = true;
	for (size_t n = 1; s->in < end; n = n * 7 % 65521 + 1) {
		ssize_t r = recv(s->fd, b, n < end - s->in ? n : end - s->in, 0);
		if (r <= 0)
			return (void *)2;
		right &= peer_check(b, (size_t)r, s->in);
		s->in += (uint64_t)r;
	}
	return (void *)(uintptr_t)right;
}

void c_stream(void)
{
	struct sock s = tcp_new();
	static char b[70000];
	pthread_t t;
	void *right;
	peer_start(ctl, "recv 0 100000; send 0 3000000; recv 0 5900000; send 0 3000000");
	pthread_create(&t, NULL, reader, &s);
	uint64_t end = s.out + 6000000;
	for (size_t n = 1; s.out < end; n = n * 11 % 65521 + 1) {
		size_t k = n < end - s.out ? n : end - s.out;
		peer_fill(b, k, s.out);
		ssize_t r = send(s.fd, b, k, 0);
		if (r < 0) {
			say_rc("send", r);
			break;
		}
		s.out += (uint64_t)r;
	}
	pthread_join(t, &right);
	printf(" peer=%s read=%s", peer_done(ctl) ? "ok" : "failed", right == (void *)1 ? "ok" : "WRONG");
	still_alive(&s);
}
