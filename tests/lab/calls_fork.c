/* calls_fork.c - a hot socket and children that inherit it: who may use it on which path, and when it's its parent's alone again (fork_again.sh looks at that).
 * Conventions: drive.h. */
#include "calls.h"

#include <fcntl.h>
#include <sys/wait.h>

static struct sock cloexec_hot(int flag)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	struct sock s = { .fd = socket(AF_INET, SOCK_STREAM | flag, 0), .idx = 0 };
	inet_pton(AF_INET, peer_addr, &sa.sin_addr);
	setsockopt(s.fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &(int){ 1 }, sizeof(int));
	peer_start(ctl, "vf present; acc");
	say_rc("connect", connect(s.fd, (void *)&sa, sizeof sa));
	peer_done(ctl);
	heat_up(&s);
	return s;
}

/* there: everything happens while the child is there. */
static void finish(struct sock *s, pid_t pid, bool there)
{
	if (there) {
		heat_up(s);
		still_alive(s);
	}
	if (pid > 0) {
		kill(pid, SIGTERM);
		waitpid(pid, NULL, 0);
	}
	if (!there) {
		heat_up(s);
		still_alive(s);
	}
}

/* The child does what children do for BGSAVE: it works for a while and ends. */
void c_fork_again(void)
{
	struct sock s = cloexec_hot(SOCK_CLOEXEC);
	pid_t pid = fork();
	if (pid == 0) {
		msleep(100);
		_exit(0);
	}
	heat_up(&s);
	finish(&s, pid, false);
}

static pid_t sleeper(void (*before)(int fd), int fd)
{
	pid_t pid = fork();
	if (pid == 0) {
		before(fd);
		execlp("sleep", "sleep", "10", (char *)NULL);
		_exit(9);
	}
	return pid;
}

static void do_nothing(int fd) { (void)fd; }
static void do_dup(int fd) { dup2(fd, 0); }
static void do_dup_cloexec(int fd) { fcntl(fd, F_DUPFD_CLOEXEC, 100); }
static void do_flag(int fd) { fcntl(fd, F_SETFD, 0); }

static void do_opt(int fd)
{
	(void)fd;
	setsockopt(fd, IPPROTO_TCP, 2 /* TCP_MAXSEG */, &(int){ 700 }, sizeof(int));
}

/* The child becomes another program, which doesn't have the socket. */
void c_fork_exec(void)
{
	struct sock s = cloexec_hot(SOCK_CLOEXEC);
	pid_t pid = sleeper(do_nothing, s.fd);
	msleep(50);
	finish(&s, pid, true);
}

void c_fork_exec_dup_cloexec(void)
{
	struct sock s = cloexec_hot(SOCK_CLOEXEC);
	pid_t pid = sleeper(do_dup_cloexec, s.fd);
	msleep(50);
	finish(&s, pid, true);
}

/* ... and which does. */
void c_fork_exec_dup(void)
{
	struct sock s = cloexec_hot(SOCK_CLOEXEC);
	pid_t pid = sleeper(do_dup, s.fd);
	msleep(50);
	finish(&s, pid, true);
}

void c_fork_exec_flag(void)
{
	struct sock s = cloexec_hot(SOCK_CLOEXEC);
	pid_t pid = sleeper(do_flag, s.fd);
	msleep(50);
	finish(&s, pid, true);
}

void c_fork_exec_open(void)
{
	struct sock s = cloexec_hot(0);
	pid_t pid = sleeper(do_nothing, s.fd);
	msleep(50);
	finish(&s, pid, true);
}

/* The child has changed what only its own tables know of. */
void c_fork_exec_opt(void)
{
	struct sock s = cloexec_hot(SOCK_CLOEXEC);
	pid_t pid = sleeper(do_opt, s.fd);
	msleep(50);
	finish(&s, pid, true);
}

/* The child stays. */
void c_fork_stays(void)
{
	struct sock s = cloexec_hot(SOCK_CLOEXEC);
	pid_t pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	heat_up(&s);
	finish(&s, pid, true);
}

/* The child closes everything it can find, keeps a copy and ends: nobody knows where the copy went. */
void c_fork_closes(void)
{
	struct sock s = cloexec_hot(SOCK_CLOEXEC);
	pid_t pid = fork();
	if (pid == 0) {
		int keep = dup(s.fd);
		for (int fd = 3; fd < 2000; fd++)
			if (fd != keep)
				close(fd);
		msleep(100);
		_exit(0);
	}
	msleep(50);
	heat_up(&s);
	finish(&s, pid, false);
}

/* The same without a copy: the life line is out of reach of such a loop. */
void c_fork_closes_all(void)
{
	struct sock s = cloexec_hot(SOCK_CLOEXEC);
	pid_t pid = fork();
	if (pid == 0) {
		for (int fd = 3; fd < 2000; fd++)
			if (fd != s.fd)
				close(fd);
		close_range((unsigned)s.fd + 1, ~0u, 0);
		pause();
		_exit(0);
	}
	msleep(50);
	heat_up(&s);
	finish(&s, pid, true);
}

/* The child's child stays. */
void c_fork_grandchild(void)
{
	struct sock s = cloexec_hot(SOCK_CLOEXEC);
	pid_t pid = fork();
	if (pid == 0) {
		if (fork() == 0) {
			msleep(1500);
			_exit(0);
		}
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	heat_up(&s);
	finish(&s, 0, true);
}

/* A child by vfork() gives its program a copy. */
void c_vfork_dup(void)
{
	struct sock s = cloexec_hot(SOCK_CLOEXEC);
	pid_t pid = vfork();
	if (pid == 0) {
		dup2(s.fd, 0);
		execlp("sleep", "sleep", "10", (char *)NULL);
		_exit(9);
	}
	heat_up(&s);
	finish(&s, pid, true);
}
