/* calls_fd.c - descriptors and processes: dup, fork, exec, passing, close in all its forms. Conventions: drive.h. */
#include "calls.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

extern char **environ;

void c_dup(void)
{
	struct sock s = tcp_new();
	int a = dup(s.fd), b = fcntl(s.fd, F_DUPFD, 100), c = fcntl(s.fd, F_DUPFD_CLOEXEC, 100), d = dup2(s.fd, 200), e = dup3(s.fd, 201, O_CLOEXEC);
	printf(" %d %d %d %d", b >= 100, c >= 100, d, e);
	printf(" cloexec=%d%d%d%d%d", fcntl(a, F_GETFD), fcntl(b, F_GETFD), fcntl(c, F_GETFD), fcntl(d, F_GETFD), fcntl(e, F_GETFD));
	const int copies[] = { a, b, c, d, e };
	struct sock first = s;
	for (int i = 0; i < 5; i++) {
		s.fd = copies[i];
		put(&s, 3);
	}
	printf(" %s", peer_do(ctl, "recv 0 15; send 0 10") ? "ok" : "failed");
	get(&s, 10);
	say_rc("close", close(first.fd)); /* the first descriptor goes, the socket lives */
	fcntl(a, F_SETFL, fcntl(a, F_GETFL) | O_NONBLOCK); /* belongs to all */
	char x;
	say_rc("recv", recv(b, &x, 1, 0));
	fcntl(a, F_SETFL, fcntl(a, F_GETFL) & ~O_NONBLOCK);
	close(a);
	close(b);
	close(c);
	close(d);
	say_rc("dup2-self", dup2(e, e));
	say_rc("dup3-self", dup3(e, e, 0));
	say_rc("dup2-bad", dup2(e, -1));
	say_rc("dup-bad", dup(a));
	s.fd = e;
	warm(&s, 50);
	still_alive(&s);
	printf(" eof=%s", peer_do(ctl, "eof 0") ? "ok" : "failed");
}

/* One hot socket put over another: that one is closed, as by close(). */
void c_dup2_over(void)
{
	struct sock a = tcp_new(), b = tcp_new();
	int fd = b.fd;
	say_rc("dup2", dup2(a.fd, b.fd) == fd ? 0 : -1);
	printf(" eof=%s", peer_do(ctl, "eof 1") ? "ok" : "failed");
	close(a.fd);
	a.fd = fd;
	warm(&a, 50);
	/* a file over a hot socket */
	int null = open("/dev/null", O_RDWR);
	say_rc("dup2", dup2(null, a.fd) == fd ? 0 : -1);
	printf(" eof=%s", peer_do(ctl, "eof 0") ? "ok" : "failed");
	char c;
	say_rc("read", read(fd, &c, 1));
	say_rc("send", send(fd, "x", 1, 0));
}

static void end_child(pid_t pid)
{
	int st = 0;
	waitpid(pid, &st, 0);
	printf(" child=%d", WIFEXITED(st) ? WEXITSTATUS(st) : -WTERMSIG(st));
}

void c_fork_shared(void)
{
	struct sock s = tcp_new();
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		char b[16];
		peer_fill(b, 7, s.out);
		_exit(send(s.fd, b, 7, 0) == 7 ? 0 : 1);
	}
	end_child(pid);
	s.out += 7;
	printf(" %s", peer_do(ctl, "recv 0 7") ? "ok" : "failed");
	put(&s, 5);
	printf(" %s", peer_do(ctl, "recv 0 5; send 0 8") ? "ok" : "failed");
	pid = fork();
	if (pid == 0) {
		char b[16];
		ssize_t r = recv(s.fd, b, 3, MSG_WAITALL);
		_exit(r == 3 && peer_check(b, 3, s.in) ? 0 : 1);
	}
	end_child(pid);
	s.in += 3;
	get(&s, 5);
	still_alive(&s);
	printf(" eof=%s", peer_do(ctl, "eof 0") ? "ok" : "failed");
}

/* The child closes its copy and ends; nothing happens to ours. */
void c_fork_close(void)
{
	struct sock s = tcp_new();
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		close(s.fd);
		_exit(0);
	}
	end_child(pid);
	warm(&s, 50);
	/* and the other way round: the parent's close isn't the end while a child has it */
	peer_start(ctl, "recv 0 4; sleep 1; eof 0");
	pid = fork();
	if (pid == 0) {
		char b[16];
		msleep(60);
		peer_fill(b, 4, s.out);
		_exit(send(s.fd, b, 4, 0) == 4 ? 0 : 1);
	}
	close(s.fd);
	end_child(pid);
	printf(" %s", peer_done(ctl) ? "ok" : "failed");
}

/* The child opens a connection of its own and heats it. */
void c_fork_own(void)
{
	struct sock s = tcp_new();
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		struct sock t = tcp_new();
		heat_up(&t);
		still_alive(&t);
		fflush(stdout);
		exit(0);
	}
	end_child(pid);
	still_alive(&s);
}

/* cat(1) echoes what it gets: the alphabet must come back in step, so both directions begin at the same offset. */
static void cat_talk(struct sock *s)
{
	s->in = s->out;
	printf(" %s", peer_do(ctl, "send 0 500; recv 0 500") ? "echoed" : "failed");
	s->in += 500;
	s->out += 500;
}

void c_exec(void)
{
	struct sock s = tcp_new();
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(s.fd, 0);
		dup2(s.fd, 1);
		execlp("cat", "cat", (char *)NULL);
		_exit(9);
	}
	cat_talk(&s);
	shutdown(s.fd, SHUT_WR);
	peer_do(ctl, "eof 0; fin 0");
	end_child(pid);
	close(s.fd);
}

void c_spawn(void)
{
	struct sock s = tcp_new();
	posix_spawn_file_actions_t fa;
	pid_t pid = -1;
	char *argv[] = { (char *)"cat", NULL };
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, s.fd, 0);
	posix_spawn_file_actions_adddup2(&fa, s.fd, 1);
	posix_spawn_file_actions_addclose(&fa, s.fd);
	errno = posix_spawnp(&pid, "cat", &fa, NULL, argv, environ);
	say_rc("spawn", errno == 0 ? 0 : -1);
	cat_talk(&s);
	shutdown(s.fd, SHUT_RDWR);
	end_child(pid);
	close(s.fd);
}

void c_vfork(void)
{
	struct sock s = tcp_new();
	fflush(stdout);
	static char fd_text[12];
	snprintf(fd_text, sizeof fd_text, "%d", s.fd);
	pid_t pid = vfork();
	if (pid == 0) {
		execlp("sh", "sh", "-c", "exec cat <&$0 >&$0", fd_text, (char *)NULL);
		_exit(9);
	}
	cat_talk(&s);
	shutdown(s.fd, SHUT_RDWR);
	end_child(pid);
	close(s.fd);
}

void c_system(void)
{
	struct sock s = tcp_new();
	char cmd[64];
	fflush(stdout);
	s.in = s.out;
	peer_start(ctl, "send 0 10; recv 0 10");
	snprintf(cmd, sizeof cmd, "head -c 10 <&%d >&%d", s.fd, s.fd);
	say_rc("system", system(cmd));
	s.in += 10;
	s.out += 10;
	printf(" %s", peer_done(ctl) ? "echoed" : "failed");
	FILE *p = popen("echo hello", "r");
	char line[16] = "";
	if (p == NULL || fgets(line, sizeof line, p) == NULL)
		printf(" popen failed");
	line[strcspn(line, "\n")] = '\0';
	printf(" %s", line);
	say_rc("pclose", pclose(p));
	still_alive(&s);
}

/* The process becomes cat itself; the descriptor without CLOEXEC goes with it. */
void c_exec_self(void)
{
	struct sock s = tcp_new(), t = tcp_new();
	fcntl(t.fd, F_SETFD, FD_CLOEXEC);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		struct sock u = tcp_new();
		(void)u;
		dup2(s.fd, 0);
		execlp("cat", "cat", "/dev/null", (char *)NULL);
		_exit(9);
	}
	end_child(pid);
	say_rc("exec", execlp("/nonexistent/program", "x", (char *)NULL)); /* fails: we go on */
	printf(" exec-end");
	still_alive(&s);
	still_alive(&t);
}

static int send_fd(int via, int fd)
{
	char x = 'f';
	struct iovec v = { &x, 1 };
	union { char b[CMSG_SPACE(sizeof(int))]; struct cmsghdr h; } u = { 0 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = u.b, .msg_controllen = sizeof u.b };
	u.h.cmsg_level = SOL_SOCKET;
	u.h.cmsg_type = SCM_RIGHTS;
	u.h.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&u.h), &fd, sizeof fd);
	return (int)sendmsg(via, &m, 0);
}

static int recv_fd(int via)
{
	char x;
	struct iovec v = { &x, 1 };
	union { char b[CMSG_SPACE(sizeof(int))]; struct cmsghdr h; } u = { 0 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = u.b, .msg_controllen = sizeof u.b };
	int fd = -1;
	if (recvmsg(via, &m, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&m) != NULL)
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	return fd;
}

void c_pass(void)
{
	int sp[2], go[2];
	char x = 0;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sp) != 0 || pipe(go) != 0)
		return;
	fflush(stdout);
	pid_t pid = fork(); /* before there is a connection */
	if (pid == 0) {
		char b[16];
		int fd = recv_fd(sp[1]);
		ssize_t r = recv(fd, b, 4, MSG_WAITALL);
		_exit(r == 4 && send(fd, b, 4, 0) == 4 && write(go[1], "x", 1) == 1 ? 0 : 1);
	}
	struct sock s = tcp_new();
	s.in = s.out;
	say_rc("sendmsg", send_fd(sp[0], s.fd));
	printf(" %s", peer_do(ctl, "send 0 4; recv 0 4") ? "echoed" : "failed");
	s.in += 4;
	s.out += 4;
	say_rc("child-says", read(go[0], &x, 1));
	end_child(pid);
	still_alive(&s);
	printf(" eof=%s", peer_do(ctl, "eof 0") ? "ok" : "failed");
}

/* To ourselves: two numbers, one socket. The first is closed while the copy is under way. */
void c_pass_self(void)
{
	int sp[2];
	struct sock s = tcp_new();
	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, sp) != 0)
		return;
	say_rc("sendmsg", send_fd(sp[0], s.fd));
	close(s.fd);
	s.fd = recv_fd(sp[1]);
	printf(" cloexec=%d", fcntl(s.fd, F_GETFD));
	heat_up(&s);
	still_alive(&s);
	printf(" eof=%s", peer_do(ctl, "eof 0") ? "ok" : "failed");
}

void c_stat(void)
{
	struct sock s;
	struct stat a, b;
	char path[64], l1[64] = "", l2[64] = "";
	enum move m = move;
	move = COLD;
	s = tcp_new();
	move = m;
	fstat(s.fd, &a);
	snprintf(path, sizeof path, "/proc/self/fd/%d", s.fd);
	if (readlink(path, l1, sizeof l1 - 1) < 0)
		printf(" readlink");
	heat_up(&s);
	fstat(s.fd, &b);
	if (readlink(path, l2, sizeof l2 - 1) < 0)
		printf(" readlink");
	printf(" %s %s %s", S_ISSOCK(b.st_mode) ? "socket" : "?", a.st_ino == b.st_ino ? "same inode" : "other inode", strcmp(l1, l2) == 0 ? "same link" : "other link");
	still_alive(&s);
}

void c_close_range(void)
{
	struct sock s = tcp_new(), t = tcp_new();
	int hi = fcntl(s.fd, F_DUPFD, 500), hi2 = fcntl(t.fd, F_DUPFD, 510);
	close(t.fd);
	say_rc("close_range", close_range(505, 600, 0));
	printf(" eof=%s", peer_do(ctl, "eof 1") ? "ok" : "failed");
	say_rc("dup", fcntl(hi2, F_GETFD));
	say_rc("cloexec", close_range(500, 501, CLOSE_RANGE_CLOEXEC));
	printf(" %d", fcntl(hi, F_GETFD));
	close(s.fd);
	s.fd = hi;
	warm(&s, 50);
	/* everything above the control socket, as daemons do; the library's own descriptors too */
	int low = dup2(hi, 9);
	say_rc("closefrom", (closefrom(10), 0));
	s.fd = low;
	say_rc("closed", fcntl(hi, F_GETFD));
	still_alive(&s);
	printf(" eof=%s", peer_do(ctl, "eof 0") ? "ok" : "failed");
	s = tcp_new();
	still_alive(&s);
}

/* A closed number is soon another socket. */
void c_reuse(void)
{
	struct sock s = tcp_new();
	int fd = s.fd;
	close(s.fd);
	s = tcp_new();
	printf(" %s", s.fd == fd ? "same number" : "other number");
	warm(&s, 50);
	close(s.fd);
	int u = socket(AF_UNIX, SOCK_STREAM, 0);
	printf(" %s", u == fd ? "same number" : "other number");
	char c;
	say_rc("recv", recv(u, &c, 1, MSG_DONTWAIT));
	close(u);
	say_rc("send", send(fd, "x", 1, 0));
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n = poll(&p, 1, 0);
	printf(" poll=%d:%x", n, (unsigned)p.revents);
	printf(" eof=%s", peer_do(ctl, "eof 0; eof 1") ? "ok" : "failed");
}

/* The parent ends, the child has the connection: a daemon after start. */
void c_daemon(void)
{
	struct sock s = tcp_new();
	int done[2];
	char x = '?';
	if (pipe(done) != 0)
		return;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		pid_t inner = fork();
		if (inner != 0)
			exit(0);
		warm(&s, 50);
		exit(write(done[1], "d", 1) == 1 ? 0 : 1);
	}
	end_child(pid);
	close(done[1]);
	say_rc("grandchild", read(done[0], &x, 1));
	s.in += 50;
	s.out += 50;
	still_alive(&s);
}

/* A server that becomes somebody else in the middle of a connection, as they do behind the login. */
void c_privileges(void)
{
	struct sock s = tcp_new();
	say_rc("setgid", setgid(65534));
	say_rc("setuid", setuid(65534));
	warm(&s, 50);
	peer_do(ctl, "lab vf-remove; sleep 50");
	warm(&s, 50);
	peer_do(ctl, "vf present; sleep 50");
	heat_up(&s);
	shutdown(s.fd, SHUT_WR);
	printf(" %s", peer_do(ctl, "eof 0; send 0 5; fin 0") ? "ok" : "failed");
	get(&s, 5);
	nothing_more(&s);
	close(s.fd);
	s = tcp_new();
	put(&s, 50000);
	close(s.fd);
	printf(" %s", peer_do(ctl, "recv 1 50000; eof 1") ? "ok" : "failed");
}

/* For a while only, and again and again; the other one isn't hot before the second time. */
void c_privileges_back(void)
{
	struct sock s = tcp_new();
	for (int i = 0; i < 3; i++) {
		say_rc("seteuid", seteuid(65534));
		warm(&s, 30);
		if (i == 1)
			peer_do(ctl, "lab vf-remove; sleep 50; vf present");
		struct sock t = tcp_new();
		say_rc("seteuid", seteuid(0));
		heat_up(&t);
		heat_up(&s);
		still_alive(&t);
	}
	printf(" %d %d", getuid(), geteuid());
	put(&s, 5);
	close(s.fd);
	printf(" %s", peer_do(ctl, "recv 0 5; eof 0") ? "ok" : "failed");
}
