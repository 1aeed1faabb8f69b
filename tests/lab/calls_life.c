/* calls_life.c - a hot socket and the life of its process: how it ends, what it runs out of, what its other threads do meanwhile. Conventions: drive.h. */
#include "calls.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* ---- ends ---- */

static void ends(const char *name, int idx, int sig)
{
	pid_t pid = fork();
	int st = 0;
	if (pid == 0) {
		struct sock s = tcp_cold(idx);
		heat_up(&s);
		put(&s, 3000);
		fflush(stdout);
		if (sig == SIGSEGV)
			*(volatile int *)(volatile uintptr_t){ 16 } = 1;
		raise(sig);
		_exit(3);
	}
	waitpid(pid, &st, 0);
	printf(" %s=%d:%s", name, WIFSIGNALED(st) ? WTERMSIG(st) : -1, peer_do(ctl, "recv %d 3000; eof %d", idx, idx) ? "end" : "nothing");
}

/* Nobody catches the signal: the peer sees the end all the same, and who asks hears that nobody catches it. */
void c_end_signal(void)
{
	ends("term", 0, SIGTERM);
	ends("abort", 1, SIGABRT);
	ends("crash", 2, SIGSEGV);
	ends("rt", 3, SIGRTMIN);
}

#define BUSY 3

/* To the VF and back all the time: the call with these flags is the kernel's. */
static void *moving(void *arg)
{
	struct sock *s = arg;
	char c;
	for (;;) {
		c = peer_octet(s->out++);
		if (send(s->fd, &c, 1, MSG_NOSIGNAL) != 1)
			return NULL;
		if (s->out % 16 == 0)
			recv(s->fd, &c, 1, MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT);
	}
}

/* Other threads are in the middle of a move when the process ends or becomes another program: each peer sees the end. */
void c_end_busy(void)
{
	int ok = 0, k = 0;
	for (int round = 0; round < 9; round++) {
		pid_t pid = fork();
		if (pid == 0) {
			static struct sock s[BUSY];
			pthread_t t;
			for (int i = 0; i < BUSY; i++) {
				s[i] = tcp_cold(k + i);
				if (i == 0)
					heat_up(&s[i]);
				fcntl(s[i].fd, F_SETFD, FD_CLOEXEC);
			}
			for (int i = 0; i < BUSY; i++)
				pthread_create(&t, NULL, moving, &s[i]);
			msleep(20 + round * 3);
			if (round % 3 == 0)
				exit(0);
			if (round % 3 == 1)
				_exit(0);
			execlp("true", "true", (char *)NULL);
		}
		waitpid(pid, NULL, 0);
		for (int i = 0; i < BUSY; i++, k++)
			ok += peer_do(ctl, "rest %d", k);
	}
	printf(" ends=%d", ok);
}

static void wait_all(struct sock *s)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN };
	peer_start(ctl, "sleep 50; send %d 5", s->idx);
	get(s, 5);
	peer_done(ctl);
	peer_start(ctl, "sleep 50; send %d 5", s->idx);
	say_ready("poll", poll(&p, 1, 5000), (unsigned)p.revents);
	get(s, 5);
	peer_done(ctl);
}

void c_limit_fds(void)
{
	struct sock s = tcp_new();
	struct rlimit l;
	getrlimit(RLIMIT_NOFILE, &l);
	say_rc("setrlimit", setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 0, l.rlim_max }));
	peer_start(ctl, "sleep 50; send %d 5", s.idx);
	get(&s, 5);
	peer_done(ctl);
	still_alive(&s);
}

void c_no_fds(void)
{
	struct sock s = tcp_new();
	struct rlimit l;
	getrlimit(RLIMIT_NOFILE, &l);
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 2000, l.rlim_max });
	while (dup(0) >= 0)
		;
	printf(" %s", err_text(errno));
	wait_all(&s);
	still_alive(&s);
}

void c_no_fds_epoll(void)
{
	struct sock s = tcp_new();
	struct rlimit l;
	struct epoll_event ev;
	int ep = epoll_create1(0);
	getrlimit(RLIMIT_NOFILE, &l);
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 2000, l.rlim_max });
	while (dup(0) >= 0)
		;
	printf(" %s", err_text(errno));
	say_rc("add", epoll_ctl(ep, EPOLL_CTL_ADD, s.fd, &(struct epoll_event){ .events = EPOLLIN }));
	for (int i = 0; i < 5; i++) {
		peer_start(ctl, "sleep 50; send %d 5", s.idx);
		say_rc("epoll", epoll_wait(ep, &ev, 1, 5000));
		get(&s, 5);
		peer_done(ctl);
	}
	still_alive(&s);
}

/* ---- epoll ---- */

void c_epoll_dup(void)
{
	struct sock s = tcp_new(), t;
	struct epoll_event ev;
	int ep = epoll_create1(0), ep2, other = epoll_create1(0);
	t = tcp_cold(1);
	say_rc("add", epoll_ctl(ep, EPOLL_CTL_ADD, t.fd, &(struct epoll_event){ .events = EPOLLIN, .data.u64 = 7 }));
	ep2 = dup(ep);
	close(ep);
	(void)other;
	heat_up(&t);
	say_rc("idle", epoll_wait(ep2, &ev, 1, 100));
	peer_start(ctl, "sleep 50; send 1 5");
	say_rc("epoll", epoll_wait(ep2, &ev, 1, 5000));
	printf(" %x:%d", ev.events, (int)ev.data.u64);
	get(&t, 5);
	peer_done(ctl);
	say_rc("idle", epoll_wait(ep2, &ev, 1, 100));
	still_alive(&t);
	still_alive(&s);
}

void c_epoll_now(void)
{
	struct sock s = tcp_new();
	struct epoll_event ev;
	int ep = epoll_create1(0), e = eventfd(0, EFD_NONBLOCK), missing = 0;
	uint64_t v = 1;
	epoll_ctl(ep, EPOLL_CTL_ADD, s.fd, &(struct epoll_event){ .events = EPOLLIN });
	epoll_ctl(ep, EPOLL_CTL_ADD, e, &(struct epoll_event){ .events = EPOLLIN });
	warm(&s, 50);
	for (int i = 0; i < 1000; i++) {
		if (write(e, &v, sizeof v) != sizeof v)
			printf(" write");
		missing += epoll_wait(ep, &ev, 1, 0) != 1;
		if (read(e, &v, sizeof v) != sizeof v)
			printf(" read");
		missing += epoll_wait(ep, &ev, 1, 0) != 0;
	}
	printf(" missing=%d", missing);
	still_alive(&s);
}

/* ---- threads ---- */

static struct sock cs;
static int cep;

static void *in_recv(void *arg)
{
	char c;
	(void)arg;
	say_rc("recv", recv(cs.fd, &c, 1, 0));
	return NULL;
}

static void *in_poll(void *arg)
{
	struct pollfd p = { .fd = cs.fd, .events = POLLIN };
	(void)arg;
	say_rc("poll", poll(&p, 1, -1));
	return NULL;
}

static void *in_epoll(void *arg)
{
	struct epoll_event ev;
	(void)arg;
	say_rc("epoll", epoll_wait(cep, &ev, 1, -1));
	return NULL;
}

void c_cancel(void)
{
	void *(*const fn[])(void *) = { in_recv, in_poll, in_epoll };
	cs = tcp_new();
	cep = epoll_create1(0);
	epoll_ctl(cep, EPOLL_CTL_ADD, cs.fd, &(struct epoll_event){ .events = EPOLLIN });
	for (int i = 0; i < 3; i++) {
		pthread_t t;
		void *r = NULL;
		pthread_create(&t, NULL, fn[i], NULL);
		msleep(50);
		pthread_cancel(t);
		pthread_join(t, &r);
		printf(" cancelled=%d", r == PTHREAD_CANCELED);
	}
	still_alive(&cs);
}

/* A thread sleeps, another one closes every number that the program doesn't have, and keeps the ring busy when the event comes. */
void c_close_unknown(void)
{
	struct sock other = tcp_new();
	pthread_t t;
	cs = tcp_cold(1);
	heat_up(&cs);
	cep = epoll_create1(0);
	epoll_ctl(cep, EPOLL_CTL_ADD, cs.fd, &(struct epoll_event){ .events = EPOLLIN });
	for (int i = 0; i < 2; i++) {
		pthread_create(&t, NULL, i == 0 ? in_recv : in_epoll, NULL);
		msleep(50);
		for (int fd = 64; fd < 4096; fd++)
			close(fd);
		peer_start(ctl, "echo 0 300; send 1 1; echo 0 300");
		for (int k = 0; k < 600; k++) {
			char c = peer_octet(other.out++), r = 0;
			if (send(other.fd, &c, 1, 0) != 1 || recv(other.fd, &r, 1, 0) != 1)
				break;
			other.in++;
		}
		peer_done(ctl);
		pthread_join(t, NULL);
		if (i == 0)
			cs.in++;
	}
	get(&cs, 1);
	still_alive(&cs);
	still_alive(&other);
}

static _Atomic int busy_fd = -1;

static void *making(void *arg)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	(void)arg;
	for (;;) {
		int fd = socket(AF_INET, SOCK_DGRAM, 0);
		connect(fd, (void *)&sa, sizeof sa);
		busy_fd = fd;
		for (int i = 0; i < 20; i++)
			send(fd, "x", 1, MSG_DONTWAIT);
		busy_fd = -1;
		close(fd);
	}
	return NULL;
}

/* Another thread is in the middle of anything with a socket at the moment of the fork. */
void c_fork_busy(void)
{
	pthread_t t;
	int hung = 0;
	pthread_create(&t, NULL, making, NULL);
	for (int i = 0; i < 300 && hung == 0; i++) {
		pid_t pid;
		int st = 0, fd;
		while ((fd = busy_fd) < 0)
			;
		for (volatile int k = 0; k < i * 37 % 3000; k++)
			;
		pid = fork();
		if (pid == 0) {
			send(fd, "x", 1, MSG_DONTWAIT);
			_exit(0);
		}
		int ms = 0;
		while (waitpid(pid, &st, WNOHANG) == 0 && ms++ < 3000)
			msleep(1);
		if (ms > 3000) {
			hung++;
			kill(pid, SIGKILL);
			waitpid(pid, &st, 0);
		}
	}
	printf(" hung=%d", hung);
}
