/*
 * proc.c - fork, exec, spawn, exit, stdio on a socket.
 *
 * fork: pthread_atfork handlers, so that fork() inside libc (daemon(3), forkpty(3)) counts too; the engine gives everything back first. exec: what stays open goes to the
 * kernel for good, and what is closed by it must be closed by a kernel socket that can say so to its peer. A vforked child may only do that to descriptors that are still its
 * parent's.
 */
#include <linux/kcmp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/conf.h"
#include "base/log.h"
#include "preload/io.h"
#include "preload/proc.h"

pid_t hv_pid;

void hv_uring_seen(void)
{
	hv_engine_enter();
	hv_engine_stop(HV_WHY_URING);
	hv_engine_leave();
}

/* ---- fork ---- */

static void before_fork(int fd, struct hv_file *f, void *arg)
{
	(void)arg;
	if (f->kind == HV_KIND_SOCK)
		hv_sock_before_fork(f->s, (hv_sys_fcntl(fd, F_GETFD, 0) & FD_CLOEXEC) != 0);
}

static void forked(int fd, struct hv_file *f, void *arg)
{
	(void)fd;
	(void)arg;
	if (f->kind == HV_KIND_SOCK)
		hv_sock_forked(f->s);
}

void hv_fork_prepare(void)
{
	if (!hv_on)
		return;
	hv_inside_depth++; /* signals wait until both sides are whole again */
	if (hv_fork_matters())
		hv_tab_each(0, HV_FD_MAX - 1, before_fork, NULL);
	hv_engine_fork_prepare();
}

void hv_fork_parent(void)
{
	if (!hv_on)
		return;
	hv_engine_fork_parent();
	hv_engine_leave();
}

void hv_fork_child(void)
{
	if (!hv_on)
		return;
	hv_pid = hv_sys_getpid();
	hv_engine_fork_child();
	hv_tab_each(0, HV_FD_MAX - 1, forked, NULL); /* an attempt to move one may have been going on, the first of all even */
	hv_engine_leave();
}

void hv_proc_init(void)
{
	hv_pid = hv_sys_getpid();
	pthread_atfork(hv_fork_prepare, hv_fork_parent, hv_fork_child);
}

/* Without the handlers, by definition; our part is needed all the same. */
HV_EXPORT pid_t _Fork(void)
{
	if (hv_aside() || hv_borrowed())
		return REAL_LAZY(_Fork)();
	hv_fork_prepare();
	pid_t p = REAL_LAZY(_Fork)();
	if (p == 0)
		hv_fork_child();
	else
		hv_fork_parent();
	return p;
}

/* ---- exec ---- */

/* Is this child's descriptor still what the parent knows under that number? */
static bool same_as_parent(int fd)
{
	long r = HV_SYS(SYS_kcmp, hv_sys_getpid(), hv_pid, KCMP_FILE, fd, fd, 0);
	return r == 0 || (r < 0 && r != -EBADF);
}

static void leaves(int fd, struct hv_file *f, void *arg)
{
	bool borrowed = *(bool *)arg;

	if (f->kind != HV_KIND_SOCK)
		return;
	int fl = hv_sys_fcntl(fd, F_GETFD, 0);
	if (fl < 0)
		return;
	if (borrowed && ((fl & FD_CLOEXEC) != 0 || !same_as_parent(fd)))
		return;
	if ((fl & FD_CLOEXEC) == 0)
		hv_keep_in_kernel(f->s, HV_WHY_EXEC);
}

/* This process (or vforked child) is about to become another program, or to start one that inherits descriptors. */
static void before_program(bool exec)
{
	int e = errno;

	if (hv_aside())
		return;
	bool borrowed = hv_borrowed();
	hv_tab_each(0, HV_FD_MAX - 1, leaves, &borrowed);
	if (exec && !borrowed) {
		hv_engine_enter();
		hv_engine_pause(HV_WHY_EXEC);
		hv_engine_leave();
	}
	errno = e;
}

/* The program is still there: it wasn't that easy. */
static int no_program(int r)
{
	if (!hv_aside() && !hv_borrowed())
		hv_engine_resume();
	return r;
}

HV_EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	before_program(true);
	return no_program(REAL(execve)(path, argv, envp));
}

HV_EXPORT int execveat(int dir, const char *path, char *const argv[], char *const envp[], int flags)
{
	before_program(true);
	return no_program(REAL(execveat)(dir, path, argv, envp, flags));
}

HV_EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	before_program(true);
	return no_program(REAL_LAZY(fexecve)(fd, argv, envp));
}

HV_EXPORT int execv(const char *path, char *const argv[])
{
	before_program(true);
	return no_program(REAL_LAZY(execv)(path, argv));
}

HV_EXPORT int execvp(const char *file, char *const argv[])
{
	before_program(true);
	return no_program(REAL_LAZY(execvp)(file, argv));
}

HV_EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	before_program(true);
	return no_program(REAL_LAZY(execvpe)(file, argv, envp));
}

/* The vector of an execl() call on the stack, as libc does it: a vforked child must not allocate. */
#define EXECL(first, call, with_env)                                       \
	do {                                                               \
		va_list ap_;                                               \
		size_t n_ = 1;                                             \
		va_start(ap_, first);                                      \
		while (va_arg(ap_, const char *) != NULL)                  \
			n_++;                                              \
		va_end(ap_);                                               \
		char *argv[n_ + 1];                                        \
		char *const *envp = NULL;                                  \
		va_start(ap_, first);                                      \
		argv[0] = (char *)(uintptr_t)(first);                      \
		for (size_t i_ = 1; i_ <= n_; i_++)                        \
			argv[i_] = va_arg(ap_, char *);                    \
		if (with_env)                                              \
			envp = va_arg(ap_, char *const *);                 \
		va_end(ap_);                                               \
		(void)envp;                                                \
		return call;                                               \
	} while (0)

HV_EXPORT int execl(const char *path, const char *arg, ...)
{
	EXECL(arg, execv(path, argv), false);
}

HV_EXPORT int execlp(const char *file, const char *arg, ...)
{
	EXECL(arg, execvp(file, argv), false);
}

HV_EXPORT int execle(const char *path, const char *arg, ...)
{
	EXECL(arg, execve(path, argv, envp), true);
}

/* ---- libc starts a program for us; its own fork runs no handlers ---- */

HV_EXPORT int posix_spawn(pid_t *restrict pid, const char *restrict path, const posix_spawn_file_actions_t *fa, const posix_spawnattr_t *restrict attr,
			  char *const argv[restrict], char *const envp[restrict])
{
	before_program(false);
	return REAL_LAZY(posix_spawn)(pid, path, fa, attr, argv, envp);
}

HV_EXPORT int posix_spawnp(pid_t *restrict pid, const char *restrict file, const posix_spawn_file_actions_t *fa, const posix_spawnattr_t *restrict attr,
			   char *const argv[restrict], char *const envp[restrict])
{
	before_program(false);
	return REAL_LAZY(posix_spawnp)(pid, file, fa, attr, argv, envp);
}

/* The copy is inherited whatever the original's close-on-exec flag says. */
HV_EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *fa, int fd, int newfd)
{
	struct hv_file *f = hv_file_at(fd);

	if (f != NULL) {
		if (f->kind == HV_KIND_SOCK && !hv_borrowed())
			hv_keep_in_kernel(f->s, HV_WHY_EXEC);
		hv_file_put(f);
	}
	return REAL_LAZY(posix_spawn_file_actions_adddup2)(fa, fd, newfd);
}

HV_EXPORT int system(const char *cmd)
{
	if (cmd != NULL)
		before_program(false);
	return REAL_LAZY(system)(cmd);
}

HV_EXPORT FILE *popen(const char *cmd, const char *type)
{
	before_program(false);
	return REAL_LAZY(popen)(cmd, type);
}

/* ---- the end ---- */

void hv_proc_exit(void)
{
	if (!hv_on || hv_borrowed())
		return;
	hv_engine_enter();
	hv_engine_exit();
	hv_engine_leave();
}

HV_EXPORT void _exit(int status)
{
	hv_proc_exit();
	REAL(_exit)(status);
	__builtin_unreachable();
}

HV_EXPORT void quick_exit(int status)
{
	hv_proc_exit();
	REAL_LAZY(quick_exit)(status);
	__builtin_unreachable();
}

/* ---- stdio writes and reads without coming past us ---- */

static void stdio(int fd)
{
	struct hv_file *f = hv_sock_at(fd);
	int e = errno;

	if (f == NULL)
		return;
	hv_keep_in_kernel(f->s, HV_WHY_STDIO);
	hv_file_put(f);
	errno = e;
}

HV_EXPORT FILE *fdopen(int fd, const char *mode)
{
	stdio(fd);
	return REAL_LAZY(fdopen)(fd, mode);
}

HV_EXPORT int vdprintf(int fd, const char *restrict fmt, va_list ap)
{
	stdio(fd);
	return REAL_LAZY(vdprintf)(fd, fmt, ap);
}

HV_EXPORT int dprintf(int fd, const char *restrict fmt, ...)
{
	va_list ap;

	stdio(fd);
	va_start(ap, fmt);
	int r = REAL_LAZY(vdprintf)(fd, fmt, ap);
	va_end(ap);
	return r;
}

HV_EXPORT int __vdprintf_chk(int fd, int flag, const char *fmt, va_list ap)
{
	stdio(fd);
	return REAL_LAZY(__vdprintf_chk)(fd, flag, fmt, ap);
}

HV_EXPORT int __dprintf_chk(int fd, int flag, const char *fmt, ...)
{
	va_list ap;

	stdio(fd);
	va_start(ap, fmt);
	int r = REAL_LAZY(__vdprintf_chk)(fd, flag, fmt, ap);
	va_end(ap);
	return r;
}

void _Exit(int status) HV_ALSO(_exit);
FILE *_IO_fdopen(int fd, const char *mode);
FILE *_IO_popen(const char *cmd, const char *type);
FILE *_IO_fdopen(int fd, const char *mode) HV_ALSO(fdopen);
FILE *_IO_popen(const char *cmd, const char *type) HV_ALSO(popen);
