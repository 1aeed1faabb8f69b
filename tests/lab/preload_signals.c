/* preload_signals.c - signals that come while a thread is anywhere in a call on a hot socket. Conventions: drive.h. */
#include "drive.h"

#include <linux/tcp.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <sys/wait.h>

static volatile sig_atomic_t ticks;
static struct sock side;   /* the handler's own connection */
static int watched = -1;   /* and the one that it only looks at */
static volatile bool wrong;

static void ticking(int us)
{
	struct itimerval it = { { us / 1000000, us % 1000000 }, { us / 1000000, us % 1000000 } };
	setitimer(ITIMER_REAL, &it, NULL);
}

static void on(int sig, void (*fn)(int), int flags)
{
	struct sigaction a = { .sa_handler = fn, .sa_flags = flags };
	sigaction(sig, &a, NULL);
}

static void tick(int sig)
{
	(void)sig;
	ticks++;
}

/* Everything that may be called in a handler, on the socket that the interrupted thread is working with and on another one. */
static void busy(int sig)
{
	char b[16];
	int e = errno, q;
	struct tcp_info ti;
	socklen_t l = sizeof ti;
	struct pollfd p = { .fd = watched, .events = POLLIN | POLLOUT };
	ssize_t r = recv(watched, b, sizeof b, MSG_PEEK | MSG_DONTWAIT);
	(void)sig;
	wrong |= r == 0 || (r < 0 && errno != EAGAIN) || poll(&p, 1, 0) < 0 || ioctl(watched, FIONREAD, &q) < 0 || getsockopt(watched, IPPROTO_TCP, TCP_INFO, &ti, &l) < 0;
	b[0] = peer_octet(side.out);
	if (ticks < 2000 && send(side.fd, b, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1) {
		side.out++;
		ticks++;
	}
	errno = e;
}

static void s_reenter(void)
{
	struct sock s = tcp_new();
	side = tcp_new();
	watched = s.fd;
	on(SIGALRM, busy, SA_RESTART);
	ticking(150);
	for (int i = 0; i < 20; i++)
		warm(&s, 100);
	ticking(0);
	if (!peer_do(ctl, "recv 1 %d", (int)side.out - 200)) /* 200 by tcp_new() */
		printf(" the handler's octets are wrong");
	printf(" ticked=%d wrong=%d", ticks > 50, wrong);
	still_alive(&side);
	still_alive(&s);
}

/* An interrupted call says how far it came. */
static void whole(struct sock *s, bool out, size_t n)
{
	char *b = malloc(n);
	uint64_t *off = out ? &s->out : &s->in;
	if (out)
		peer_fill(b, n, s->out);
	for (size_t i = 0; i < n;) {
		ssize_t r = out ? send(s->fd, b + i, n - i, MSG_NOSIGNAL) : recv(s->fd, b + i, n - i, MSG_WAITALL);
		if (r <= 0 || (!out && !peer_check(b + i, (size_t)r, *off))) {
			say_rc("whole", r);
			break;
		}
		i += (size_t)r;
		*off += (uint64_t)r;
	}
	free(b);
}

/* Much data both ways while the handler does the same. */
static void s_reenter_bulk(void)
{
	struct sock s = tcp_new();
	side = tcp_new();
	watched = s.fd;
	on(SIGALRM, busy, SA_RESTART);
	ticking(150);
	for (int i = 0; i < 8; i++) {
		peer_start(ctl, "recv 0 1000000; send 0 1000000");
		whole(&s, true, 1000000);
		whole(&s, false, 1000000);
		if (!peer_done(ctl))
			printf(" failed");
	}
	ticking(0);
	if (!peer_do(ctl, "recv 1 %d", (int)side.out - 200))
		printf(" the handler's octets are wrong");
	printf(" wrong=%d", wrong);
	still_alive(&side);
	still_alive(&s);
}

static sigjmp_buf back;

static void jump(int sig)
{
	(void)sig;
	ticks++;
	siglongjmp(back, 1);
}

/* Out of a wait by a jump, many times, and the socket still works. */
static void s_jump(void)
{
	struct sock s = tcp_new();
	int ep = epoll_create1(0);
	epoll_ctl(ep, EPOLL_CTL_ADD, s.fd, &(struct epoll_event){ .events = EPOLLIN });
	on(SIGALRM, jump, 0);
	for (volatile int i = 0; i < 60; i++) {
		if (sigsetjmp(back, 1) == 0) {
			char c;
			struct pollfd p = { .fd = s.fd, .events = POLLIN };
			struct epoll_event ev;
			ticking(20 + i * 7);
			switch (i % 3) {
			case 0:
				say_rc("recv", recv(s.fd, &c, 1, 0));
				break;
			case 1:
				say_rc("poll", poll(&p, 1, 10000));
				break;
			case 2:
				say_rc("epoll", epoll_wait(ep, &ev, 1, 10000));
				break;
			}
		}
		ticking(0);
	}
	printf(" jumps=%d", ticks >= 60);
	close(ep);
	warm(&s, 100);
	still_alive(&s);
}

/* Without SA_RESTART each of them ends the call, wherever in it the thread is; the timer comes again, for the one that comes before. */
static void s_eintr(void)
{
	struct sock s = tcp_new();
	int intr = 0, other = 0;
	char c;
	on(SIGALRM, tick, 0);
	for (int i = 0; i < 200; i++) {
		ticking(30 + i);
		if (recv(s.fd, &c, 1, 0) < 0 && errno == EINTR)
			intr++;
		else
			other++;
		ticking(0);
	}
	printf(" interrupted=%d other=%d ran=%d", intr, other, ticks >= 200);
	struct timeval tv = { 10, 0 };
	setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv); /* with a timeout SA_RESTART doesn't count */
	on(SIGALRM, tick, SA_RESTART);
	ticking(20000);
	say_rc("timed", recv(s.fd, &c, 1, 0));
	ticking(0);
	still_alive(&s);
}

static void s_restart(void)
{
	struct sock s = tcp_new();
	on(SIGALRM, tick, SA_RESTART);
	ticking(2000);
	peer_start(ctl, "sleep 100; send 0 5");
	get(&s, 5);
	struct pollfd p = { .fd = s.fd, .events = POLLIN };
	say_rc("poll", poll(&p, 1, 5000)); /* never restarted */
	ticking(0);
	peer_done(ctl);
	printf(" ran=%d", ticks >= 10);
	still_alive(&s);
}

static void *kill_often(void *arg)
{
	pthread_t *t = arg;
	for (int i = 0; i < 40; i++) {
		msleep(2);
		pthread_kill(*t, SIGUSR1);
	}
	return NULL;
}

/* Blocked but for the wait itself: the handler has run when ppoll() says EINTR. */
static void s_ppoll_mask(void)
{
	struct sock s = tcp_new();
	struct pollfd p = { .fd = s.fd, .events = POLLIN };
	sigset_t block, none;
	pthread_t self = pthread_self(), t;
	int missing = 0;
	sigemptyset(&none);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	on(SIGUSR1, tick, SA_RESTART);
	pthread_sigmask(SIG_BLOCK, &block, NULL);
	pthread_create(&t, NULL, kill_often, &self);
	for (int before = 0; before < 40; before = ticks) {
		int r = ppoll(&p, 1, &(struct timespec){ 5, 0 }, &none);
		if (r != -1 || errno != EINTR) {
			say_rc("ppoll", r);
			break;
		}
		missing += ticks == before;
		sigset_t now;
		pthread_sigmask(SIG_BLOCK, NULL, &now);
		missing += !sigismember(&now, SIGUSR1);
	}
	pthread_join(t, NULL);
	printf(" ticks=%d missing=%d", (int)ticks, missing);
	still_alive(&s);
}

static _Atomic int queued_sum, queued;

static void take(int sig, siginfo_t *info, void *ctx)
{
	(void)sig;
	(void)ctx;
	queued++;
	queued_sum += info->si_value.sival_int;
}

static void *queue_many(void *arg)
{
	pthread_t *t = arg;
	for (int i = 1; i <= 500; i++) {
		while (pthread_sigqueue(*t, SIGRTMIN, (union sigval){ .sival_int = i }) != 0)
			msleep(1);
		if (i % 10 == 0)
			msleep(1);
	}
	return NULL;
}

/* None of many queued ones is lost, and each has its value. */
static void s_queue(void)
{
	struct sock s = tcp_new();
	struct sigaction a = { .sa_sigaction = take, .sa_flags = SA_SIGINFO | SA_RESTART };
	pthread_t self = pthread_self(), t;
	sigaction(SIGRTMIN, &a, NULL);
	pthread_create(&t, NULL, queue_many, &self);
	for (int i = 0; i < 10 || queued < 500; i++)
		warm(&s, 100);
	pthread_join(t, NULL);
	printf(" queued=%d sum=%d", queued, queued_sum);
	still_alive(&s);
}

/* What the program sees of its dispositions, and what a crash does. */
static void s_disposition(void)
{
	struct sock s = tcp_new();
	struct sigaction o;
	say_rc("send-bad", send(s.fd, (void *)(volatile uintptr_t){ 8 }, 1, 0));
	warm(&s, 200);
	for (int sig = 1; sig < 32; sig++)
		if (sigaction(sig, NULL, &o) == 0 && sig != SIGPIPE && (o.sa_handler != SIG_DFL || (o.sa_flags & SA_SIGINFO) != 0))
			printf(" %d", sig);
	on(SIGUSR1, tick, SA_RESTART);
	on(SIGUSR2, tick, (int)SA_RESETHAND);
	sigaction(SIGUSR1, NULL, &o);
	printf(" own=%d flags=%x", o.sa_handler == tick, (unsigned)o.sa_flags & 0xf0000007u);
	raise(SIGUSR2);
	sigaction(SIGUSR2, NULL, &o);
	printf(" reset=%d", o.sa_handler == SIG_DFL);
	printf(" signal=%d", signal(SIGUSR1, SIG_IGN) == tick);
	raise(SIGUSR1);
	printf(" ticks=%d", (int)ticks);
	fflush(stdout);
	for (int how = 0; how < 3; how++) {
		pid_t pid = fork();
		int st = 0;
		if (pid == 0) {
			if (how == 0)
				*(volatile int *)(volatile uintptr_t){ 16 } = 1;
			if (how == 1)
				kill(getpid(), SIGSEGV);
			signal(SIGSEGV, SIG_DFL);
			raise(SIGSEGV);
			_exit(3);
		}
		waitpid(pid, &st, 0);
		printf(" died=%d", WIFSIGNALED(st) ? WTERMSIG(st) : -1);
	}
	still_alive(&s);
}

/* All of these calls may be made in a handler, also when it has interrupted malloc() or free(). */
static void move_it(int sig)
{
	char b[16];
	int e = errno;
	(void)sig;
	ticks++;
	for (int i = 0; i < 20; i++) {
		b[0] = peer_octet(side.out);
		if (send(side.fd, b, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
			side.out++;
	}
	recv(side.fd, b, 1, MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT); /* the kernel's to do */
	errno = e;
}

static void *allocating(void *arg)
{
	sigset_t all;
	(void)arg;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	for (;;)
		free(malloc(4000));
	return NULL;
}

static void s_malloc(void)
{
	pthread_t t;
	struct sock s = tcp_new();
	side = tcp_new();
	pthread_create(&t, NULL, allocating, NULL);
	on(SIGALRM, move_it, SA_RESTART);
	ticking(300);
	for (int i = 0; i < 3000000 || ticks < 500; i++) {
		void *p = malloc(3000 + (size_t)i % 5000), *q = malloc(100000);
		free(p);
		free(q);
	}
	ticking(0);
	printf(" ticks=%d", ticks >= 500);
	if (!peer_do(ctl, "recv 1 %d", (int)side.out - 200))
		printf(" octets are wrong");
	still_alive(&side);
	still_alive(&s);
}

const struct drive_case drive_cases[] = {
	{ "reenter", s_reenter }, { "reenter-bulk", s_reenter_bulk }, { "jump", s_jump },   { "eintr", s_eintr },
	{ "restart", s_restart }, { "ppoll-mask", s_ppoll_mask },     { "queue", s_queue }, { "disposition", s_disposition },
	{ "malloc", s_malloc },
	{ NULL, NULL },
};
