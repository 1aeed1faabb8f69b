/*
 * drive.c - runs the cases of a socket test, one after the other.
 *
 *   PROGRAM CONTROL-PATH MOVE [CASE...]      (runs in the lab's vm; the other end is peer.c)
 *   PROGRAM -l                               lists the cases
 *
 * MOVE says what the socket goes through:
 *   cold     too few calls to become hot            hot      made hot before the wait
 *   remove   hot, and the VF is taken away in the wait      add      made hot while there's no VF, which comes back in the wait
 *   promote  a second thread's traffic makes it hot in the wait
 * Output is the same text, line by line, on the kernel and under the library: the caller compares. Each case runs in a child forked before there is any
 * socket; CPU time of a case goes to standard error, since how much is too much depends on the machine.
 */
#include "drive.h"

#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define CASE_LIMIT_S 20

static const char *const move_names[] = { "cold", "hot", "remove", "add", "promote" };

enum move move;
int ctl;
const char *peer_addr = PEER_ADDR;

/* ---- saying what happened ---- */

const char *ev_text(unsigned ev)
{
	static char t[128];
	static const struct { unsigned bit; const char *name; } names[] = {
		{ EPOLLIN, "IN" }, { EPOLLPRI, "PRI" }, { EPOLLOUT, "OUT" }, { EPOLLERR, "ERR" }, { EPOLLHUP, "HUP" }, { EPOLLRDHUP, "RDHUP" },
	};
	t[0] = '\0';
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (ev & names[i].bit) {
			strcat(t, t[0] != '\0' ? "|" : "");
			strcat(t, names[i].name);
		}
	return t[0] != '\0' ? t : "0";
}

const char *err_text(int e)
{
	const char *n = e == 0 ? "0" : strerrorname_np(e);
	return n != NULL ? n : "?";
}

/* A result of a call that returns octets: the count, checked against the stream, or the errno. */
void say_in(const char *what, struct sock *s, ssize_t r, const char *buf, bool consumed)
{
	if (r < 0) {
		printf(" %s=%s", what, err_text(errno));
		return;
	}
	printf(" %s=%zd%s", what, r, r > 0 && !peer_check(buf, (size_t)r, s->in) ? " WRONG OCTETS" : "");
	if (consumed)
		s->in += (uint64_t)r;
}

void say_rc(const char *what, long r)
{
	if (r < 0)
		printf(" %s=%s", what, err_text(errno));
	else
		printf(" %s=%ld", what, r);
}

void say_ready(const char *what, int n, unsigned ev)
{
	if (n < 0)
		printf(" %s=%s", what, err_text(errno));
	else
		printf(" %s=%d:%s", what, n, n > 0 ? ev_text(ev) : "-");
}

/* ---- sockets and moves ---- */

void warm(struct sock *s, int rounds)
{
	peer_start(ctl, "echo %d %d", s->idx, rounds);
	for (int i = 0; i < rounds; i++) {
		char c = peer_octet(s->out), r = 0;
		if (send(s->fd, &c, 1, MSG_NOSIGNAL) != 1) {
			printf(" warm-up send: %s", err_text(errno));
			break;
		}
		s->out++;
		if (recv(s->fd, &r, 1, MSG_WAITALL) != 1 || r != peer_octet(s->in)) {
			printf(" warm-up recv: %s", err_text(errno));
			break;
		}
		s->in++;
	}
	if (!peer_done(ctl))
		printf(" warm-up failed");
}

/* Busy for long enough: the process's first hot socket has to wait until its VF queues are open. */
void heat_up(struct sock *s)
{
	for (int i = 0; i < 10; i++) {
		warm(s, 20);
		msleep(15);
	}
}

static int nsock;

struct sock tcp_new(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	struct sock s = { .fd = socket(AF_INET, SOCK_STREAM, 0), .idx = nsock++ };
	inet_pton(AF_INET, peer_addr, &sa.sin_addr);
	setsockopt(s.fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	peer_start(ctl, "vf %s; acc", move == ADD ? "absent" : "present");
	if (connect(s.fd, (void *)&sa, sizeof sa) != 0)
		printf(" connect=%s", err_text(errno));
	if (!peer_done(ctl))
		printf(" accept failed");
	if (move != COLD && move != PROMOTE)
		heat_up(&s);
	return s;
}

struct sock tcp_cold(int idx)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	struct sock s = { .fd = socket(AF_INET, SOCK_STREAM, 0), .idx = idx };
	inet_pton(AF_INET, peer_addr, &sa.sin_addr);
	peer_start(ctl, "acc");
	if (connect(s.fd, (void *)&sa, sizeof sa) != 0)
		printf(" connect=%s", err_text(errno));
	peer_done(ctl);
	return s;
}

/* The traffic that makes a socket hot while another thread waits on it. */
void *heat(void *arg)
{
	struct sock *s = arg;
	msleep(30);
	for (int i = 0; i < 30; i++) {
		char c = peer_octet(s->out);
		if (send(s->fd, &c, 1, MSG_NOSIGNAL) != 1)
			printf(" second thread: %s", err_text(errno));
		s->out++;
		msleep(1);
	}
	return NULL;
}

static pthread_t heater;

/* Lets the event happen while the caller, who does this last, is in its wait. script: the peer's steps; s: whose traffic heats, or NULL. */
void event_soon(struct sock *s, const char *script)
{
	switch (move) {
	case COLD:
	case HOT:
		peer_start(ctl, "sleep 40; %s", script);
		break;
	case REMOVE:
		peer_start(ctl, "sleep 40; lab vf-remove; sleep 30; %s", script);
		break;
	case ADD:
		peer_start(ctl, "sleep 40; lab vf-add; sleep 150; %s", script);
		break;
	case PROMOTE:
		if (s == NULL) {
			peer_start(ctl, "sleep 40; %s", script);
			break;
		}
		peer_start(ctl, "recv %d 30; sleep 30; %s", s->idx, script);
		pthread_create(&heater, NULL, heat, s);
		break;
	}
}

void event_over(struct sock *s)
{
	if (move == PROMOTE && s != NULL)
		pthread_join(heater, NULL);
	if (!peer_done(ctl))
		printf(" event failed");
}

/* Nothing may be left to be said or read. */
void put(struct sock *s, size_t n)
{
	char *b = malloc(n + 1);
	peer_fill(b, n, s->out);
	ssize_t r = send(s->fd, b, n, MSG_NOSIGNAL);
	s->out += r > 0 ? (uint64_t)r : 0;
	say_rc("send", r);
	free(b);
}

void get(struct sock *s, size_t n)
{
	char *b = malloc(n + 1);
	ssize_t r = recv(s->fd, b, n, MSG_WAITALL);
	say_in("recv", s, r, b, true);
	free(b);
}

void nothing_more(struct sock *s)
{
	char b[64];
	ssize_t r = recv(s->fd, b, sizeof b, MSG_DONTWAIT);
	say_in("more", s, r, b, true);
}

/* The connection works on. */
void still_alive(struct sock *s)
{
	warm(s, 20);
	close(s->fd);
	printf(" alive");
}

/* ---- running ---- */

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

/* In a child, so that a case that hangs costs only itself. Returns false if it did. */
static bool run_case(size_t i, const char *path)
{
	printf("%s/%s:", drive_cases[i].name, move_names[move]);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		setvbuf(stdout, NULL, _IONBF, 0); /* how far one has come that hangs */
		ctl = peer_control(path);
		drive_cases[i].run();
		fflush(stdout);
		exit(0); /* not _exit: the library's summary belongs to a normal end */
	}
	int st = 0;
	struct rusage ru;
	bool ended = false;
	for (int t = 0; t < CASE_LIMIT_S * 50 && !ended; t++) {
		ended = wait4(pid, &st, WNOHANG, &ru) == pid;
		if (!ended)
			msleep(20);
	}
	if (!ended) {
		kill(pid, SIGKILL);
		wait4(pid, &st, 0, &ru);
		printf(" HUNG");
	} else if (WIFSIGNALED(st)) {
		printf(" killed by signal %d", WTERMSIG(st));
	} else if (WEXITSTATUS(st) != 0) {
		printf(" exit status %d", WEXITSTATUS(st));
	}
	printf("\n");
	fflush(stdout);
	fprintf(stderr, "%s/%s: cpu %.3f s user, %.3f s system\n", drive_cases[i].name, move_names[move], seconds(ru.ru_utime), seconds(ru.ru_stime));
	return ended;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "-l") == 0) {
		for (size_t i = 0; drive_cases[i].name != NULL; i++)
			puts(drive_cases[i].name);
		return 0;
	}
	size_t m = 0;
	while (argc > 2 && m < 5 && strcmp(argv[2], move_names[m]) != 0)
		m++;
	if (argc < 3 || m == 5) {
		fprintf(stderr, "usage: PROGRAM CONTROL-PATH cold|hot|remove|add|promote [CASE...]\n");
		return 2;
	}
	move = (enum move)m;
	signal(SIGPIPE, SIG_IGN);
	if (getenv("PEER_ADDR") != NULL)
		peer_addr = getenv("PEER_ADDR");
	int hung = 0;
	for (size_t i = 0; drive_cases[i].name != NULL && hung < 5; i++) {
		bool asked = argc == 3;
		for (int a = 3; a < argc; a++)
			asked |= strcmp(argv[a], drive_cases[i].name) == 0;
		if (asked && !run_case(i, argv[1]))
			hung++;
	}
	if (hung == 5)
		printf("five cases hung: giving up\n");
	return 0;
}
