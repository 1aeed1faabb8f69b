/*
 * syscall.c - syscall(2): the calls that we interpose go to our functions; everything else goes through untouched.
 */
#include <linux/sched.h>
#include <sys/syscall.h>

#include "preload/io.h"
#include "preload/proc.h"

#define P(x) ((void *)(uintptr_t)(x))

static long dispatch(long nr, long a, long b, long c, long d, long e, long f, bool *done)
{
	*done = true;
	switch (nr) {
	case SYS_read: return read((int)a, P(b), (size_t)c);
	case SYS_readv: return readv((int)a, P(b), (int)c);
	case SYS_write: return write((int)a, P(b), (size_t)c);
	case SYS_writev: return writev((int)a, P(b), (int)c);
	case SYS_recvfrom: return recvfrom((int)a, P(b), (size_t)c, (int)d, P(e), P(f));
	case SYS_recvmsg: return recvmsg((int)a, P(b), (int)c);
	case SYS_recvmmsg: return recvmmsg((int)a, P(b), (unsigned)c, (int)d, P(e));
	case SYS_sendto: return sendto((int)a, P(b), (size_t)c, (int)d, P(e), (socklen_t)f);
	case SYS_sendmsg: return sendmsg((int)a, P(b), (int)c);
	case SYS_sendmmsg: return sendmmsg((int)a, P(b), (unsigned)c, (int)d);
	case SYS_sendfile: return sendfile((int)a, (int)b, P(c), (size_t)d);
	case SYS_splice: return splice((int)a, P(b), (int)c, P(d), (size_t)e, (unsigned)f);
	case SYS_socket: return socket((int)a, (int)b, (int)c);
	case SYS_socketpair: return socketpair((int)a, (int)b, (int)c, P(d));
	case SYS_connect: return connect((int)a, P(b), (socklen_t)c);
	case SYS_accept: return accept((int)a, P(b), P(c));
	case SYS_accept4: return accept4((int)a, P(b), P(c), (int)d);
	case SYS_bind: return bind((int)a, P(b), (socklen_t)c);
	case SYS_listen: return listen((int)a, (int)b);
	case SYS_shutdown: return shutdown((int)a, (int)b);
	case SYS_getsockopt: return getsockopt((int)a, (int)b, (int)c, P(d), P(e));
	case SYS_setsockopt: return setsockopt((int)a, (int)b, (int)c, P(d), (socklen_t)e);
	case SYS_close: return close((int)a);
	case SYS_close_range: return close_range((unsigned)a, (unsigned)b, (int)c);
	case SYS_dup: return dup((int)a);
	case SYS_dup3: return dup3((int)a, (int)b, (int)c);
	case SYS_fcntl: return fcntl((int)a, (int)b, c);
	case SYS_ioctl: return ioctl((int)a, (unsigned long)b, c);
	case SYS_epoll_create1: return epoll_create1((int)a);
	case SYS_epoll_ctl: return epoll_ctl((int)a, (int)b, (int)c, P(d));
	case SYS_execve: return execve(P(a), P(b), P(c));
	case SYS_execveat: return execveat((int)a, P(b), P(c), P(d), (int)e);
#ifdef SYS_poll
	case SYS_poll: return poll(P(a), (nfds_t)b, (int)c);
	case SYS_select: return select((int)a, P(b), P(c), P(d), P(e));
	case SYS_dup2: return dup2((int)a, (int)b);
	case SYS_epoll_create: return epoll_create((int)a);
	case SYS_epoll_wait: return epoll_wait((int)a, P(b), (int)c, (int)d);
#endif
	case SYS_exit_group:
		hv_proc_exit();
		break;
	case SYS_io_uring_setup:
		hv_uring_seen();
		break;
	default: /* masks of ppoll & co. have the kernel's length here, not libc's: their sets are made whole below */
		break;
	}
	*done = false;
	return 0;
}

/* The kernel's signal mask is 8 octets; a libc one is longer. */
static const sigset_t *mask_of(long p, sigset_t *room)
{
	if (p == 0)
		return NULL;
	sigemptyset(room);
	*(unsigned long *)(void *)room = *(const unsigned long *)P(p);
	return room;
}

static long waits(long nr, long a, long b, long c, long d, long e, long f, bool *done)
{
	sigset_t m;

	*done = true;
	switch (nr) {
	case SYS_epoll_pwait: return epoll_pwait((int)a, P(b), (int)c, (int)d, mask_of(e, &m));
	case SYS_epoll_pwait2: return epoll_pwait2((int)a, P(b), (int)c, P(d), mask_of(e, &m));
	case SYS_ppoll: {
		/* The system call writes the rest of the time back; libc's ppoll() doesn't. */
		const struct timespec *ts = P(c);
		return ppoll(P(a), (nfds_t)b, ts, mask_of(d, &m));
	}
	case SYS_pselect6: {
		const struct { long mask; size_t len; } *s = P(f);
		return pselect((int)a, P(b), P(c), P(d), P(e), s != NULL ? mask_of(s->mask, &m) : NULL);
	}
	default:
		*done = false;
		return 0;
	}
}

/* A child with memory of its own that returns from this very call. */
static bool forks(long nr, long a, long b)
{
	if (nr == SYS_clone)
		return ((unsigned long)a & CLONE_VM) == 0 && b == 0;
	if (nr == SYS_clone3) {
		const struct clone_args *c = P(a);
		return !hv_bad(c, sizeof *c, HV_TRY_ALL) && (c->flags & CLONE_VM) == 0 && c->stack == 0;
	}
#ifdef SYS_fork
	return nr == SYS_fork;
#else
	return false;
#endif
}

HV_EXPORT long syscall(long nr, ...)
{
	va_list ap;
	bool done;

	/* As many as there can be: what the caller didn't pass is rubbish that the kernel doesn't look at. */
	va_start(ap, nr);
	long a = va_arg(ap, long), b = va_arg(ap, long), c = va_arg(ap, long), d = va_arg(ap, long), e = va_arg(ap, long), f = va_arg(ap, long);
	va_end(ap);
	if (!hv_aside()) {
		long r = dispatch(nr, a, b, c, d, e, f, &done);
		if (done)
			return r;
		r = waits(nr, a, b, c, d, e, f, &done);
		if (done)
			return r;
		if (forks(nr, a, b) && !hv_borrowed()) {
			hv_fork_prepare();
			r = REAL_LAZY(syscall)(nr, a, b, c, d, e, f);
			if (r == 0)
				hv_fork_child();
			else
				hv_fork_parent();
			return r;
		}
	}
	return REAL_LAZY(syscall)(nr, a, b, c, d, e, f);
}
