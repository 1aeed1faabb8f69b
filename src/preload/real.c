/*
 * real.c - finds the functions behind ours.
 *
 * hv_real is filled once, by the constructor, and only read afterwards. Until then it holds stand-ins that make the system call directly: no dlsym(), no
 * malloc, no TLS but errno's, because the caller may be the allocator that dlsym() itself needs.
 */
#include "preload/real.h"

#include <dlfcn.h>

#include "base/sys.h"

#define RET(type, x) do { long r_ = (x); if (r_ < 0 && r_ >= -4095) { errno = (int)-r_; return (type)-1; } return (type)r_; } while (0)

static ssize_t early_read(int fd, void *p, size_t n) { RET(ssize_t, HV_SYS(SYS_read, fd, p, n, 0, 0, 0)); }
static ssize_t early_readv(int fd, const struct iovec *v, int n) { RET(ssize_t, HV_SYS(SYS_readv, fd, v, n, 0, 0, 0)); }
static ssize_t early_preadv2(int fd, const struct iovec *v, int n, off_t o, int fl) { RET(ssize_t, HV_SYS(SYS_preadv2, fd, v, n, o, 0, fl)); }
static ssize_t early_recv(int fd, void *p, size_t n, int fl) { RET(ssize_t, HV_SYS(SYS_recvfrom, fd, p, n, fl, 0, 0)); }
static ssize_t early_recvfrom(int fd, void *restrict p, size_t n, int fl, struct sockaddr *restrict sa, socklen_t *restrict l) { RET(ssize_t, HV_SYS(SYS_recvfrom, fd, p, n, fl, sa, l)); }
static ssize_t early_recvmsg(int fd, struct msghdr *m, int fl) { RET(ssize_t, HV_SYS(SYS_recvmsg, fd, m, fl, 0, 0, 0)); }
static int early_recvmmsg(int fd, struct mmsghdr *m, unsigned n, int fl, struct timespec *t) { RET(int, HV_SYS(SYS_recvmmsg, fd, m, n, fl, t, 0)); }
static ssize_t early_write(int fd, const void *p, size_t n) { RET(ssize_t, HV_SYS(SYS_write, fd, p, n, 0, 0, 0)); }
static ssize_t early_writev(int fd, const struct iovec *v, int n) { RET(ssize_t, HV_SYS(SYS_writev, fd, v, n, 0, 0, 0)); }
static ssize_t early_pwritev2(int fd, const struct iovec *v, int n, off_t o, int fl) { RET(ssize_t, HV_SYS(SYS_pwritev2, fd, v, n, o, 0, fl)); }
static ssize_t early_send(int fd, const void *p, size_t n, int fl) { RET(ssize_t, HV_SYS(SYS_sendto, fd, p, n, fl, 0, 0)); }
static ssize_t early_sendto(int fd, const void *p, size_t n, int fl, const struct sockaddr *sa, socklen_t l) { RET(ssize_t, HV_SYS(SYS_sendto, fd, p, n, fl, sa, l)); }
static ssize_t early_sendmsg(int fd, const struct msghdr *m, int fl) { RET(ssize_t, HV_SYS(SYS_sendmsg, fd, m, fl, 0, 0, 0)); }
static int early_sendmmsg(int fd, struct mmsghdr *m, unsigned n, int fl) { RET(int, HV_SYS(SYS_sendmmsg, fd, m, n, fl, 0, 0)); }
static ssize_t early_sendfile(int o, int i, off_t *off, size_t n) { RET(ssize_t, HV_SYS(SYS_sendfile, o, i, off, n, 0, 0)); }
static ssize_t early_splice(int i, off64_t *io, int o, off64_t *oo, size_t n, unsigned fl) { RET(ssize_t, HV_SYS(SYS_splice, i, io, o, oo, n, fl)); }
static int early_socket(int d, int t, int p) { RET(int, HV_SYS(SYS_socket, d, t, p, 0, 0, 0)); }
static int early_socketpair(int d, int t, int p, int v[2]) { RET(int, HV_SYS(SYS_socketpair, d, t, p, v, 0, 0)); }
static int early_connect(int fd, const struct sockaddr *sa, socklen_t l) { RET(int, HV_SYS(SYS_connect, fd, sa, l, 0, 0, 0)); }
static int early_accept(int fd, struct sockaddr *restrict sa, socklen_t *restrict l) { RET(int, HV_SYS(SYS_accept, fd, sa, l, 0, 0, 0)); }
static int early_accept4(int fd, struct sockaddr *restrict sa, socklen_t *restrict l, int fl) { RET(int, HV_SYS(SYS_accept4, fd, sa, l, fl, 0, 0)); }
static int early_bind(int fd, const struct sockaddr *sa, socklen_t l) { RET(int, HV_SYS(SYS_bind, fd, sa, l, 0, 0, 0)); }
static int early_listen(int fd, int n) { RET(int, HV_SYS(SYS_listen, fd, n, 0, 0, 0, 0)); }
static int early_shutdown(int fd, int how) { RET(int, HV_SYS(SYS_shutdown, fd, how, 0, 0, 0, 0)); }
static int early_close(int fd) { RET(int, HV_SYS(SYS_close, fd, 0, 0, 0, 0, 0)); }
static int early_close_range(unsigned a, unsigned b, int fl) { RET(int, HV_SYS(SYS_close_range, a, b, fl, 0, 0, 0)); }
static int early_dup(int fd) { RET(int, HV_SYS(SYS_dup, fd, 0, 0, 0, 0, 0)); }
static int early_dup3(int a, int b, int fl) { RET(int, HV_SYS(SYS_dup3, a, b, fl, 0, 0, 0)); }
static int early_dup2(int a, int b)
{
	if (a == b) /* dup3() refuses that */
		return HV_SYS(SYS_fcntl, a, F_GETFD, 0, 0, 0, 0) < 0 ? (errno = EBADF, -1) : b;
	return early_dup3(a, b, 0);
}
static int early_fcntl(int fd, int cmd, ...)
{
	va_list ap;
	va_start(ap, cmd);
	long arg = va_arg(ap, long);
	va_end(ap);
	RET(int, HV_SYS(SYS_fcntl, fd, cmd, arg, 0, 0, 0));
}
static int early_ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	va_start(ap, req);
	long arg = va_arg(ap, long);
	va_end(ap);
	RET(int, HV_SYS(SYS_ioctl, fd, req, arg, 0, 0, 0));
}
static int early_getsockopt(int fd, int l, int o, void *restrict v, socklen_t *restrict n) { RET(int, HV_SYS(SYS_getsockopt, fd, l, o, v, n, 0)); }
static int early_setsockopt(int fd, int l, int o, const void *v, socklen_t n) { RET(int, HV_SYS(SYS_setsockopt, fd, l, o, v, n, 0)); }
static int early_ppoll(struct pollfd *p, nfds_t n, const struct timespec *t, const sigset_t *m)
{
	struct timespec c = t != NULL ? *t : (struct timespec){ 0, 0 };
	RET(int, HV_SYS(SYS_ppoll, p, n, t != NULL ? &c : NULL, m, 8, 0));
}
static int early_poll(struct pollfd *p, nfds_t n, int ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
	return early_ppoll(p, n, ms < 0 ? NULL : &t, NULL);
}
static int early_pselect(int n, fd_set *restrict r, fd_set *restrict w, fd_set *restrict e, const struct timespec *restrict t, const sigset_t *restrict m)
{
	struct timespec c = t != NULL ? *t : (struct timespec){ 0, 0 };
	struct { const sigset_t *m; size_t len; } a = { m, 8 };
	RET(int, HV_SYS(SYS_pselect6, n, r, w, e, t != NULL ? &c : NULL, &a));
}
static int early_select(int n, fd_set *restrict r, fd_set *restrict w, fd_set *restrict e, struct timeval *restrict t)
{
	struct timespec c = { 0, 0 };
	if (t != NULL)
		c = (struct timespec){ t->tv_sec, t->tv_usec * 1000 };
	long x = HV_SYS(SYS_pselect6, n, r, w, e, t != NULL ? &c : NULL, NULL);
	if (t != NULL)
		*t = (struct timeval){ c.tv_sec, c.tv_nsec / 1000 };
	RET(int, x);
}
static int early_epoll_create1(int fl) { RET(int, HV_SYS(SYS_epoll_create1, fl, 0, 0, 0, 0, 0)); }
static int early_epoll_create(int n)
{
	if (n <= 0) {
		errno = EINVAL;
		return -1;
	}
	return early_epoll_create1(0);
}
static int early_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev) { RET(int, HV_SYS(SYS_epoll_ctl, ep, op, fd, ev, 0, 0)); }
static int early_epoll_pwait(int ep, struct epoll_event *ev, int n, int ms, const sigset_t *m) { RET(int, HV_SYS(SYS_epoll_pwait, ep, ev, n, ms, m, 8)); }
static int early_epoll_wait(int ep, struct epoll_event *ev, int n, int ms) { return early_epoll_pwait(ep, ev, n, ms, NULL); }
static int early_epoll_pwait2(int ep, struct epoll_event *ev, int n, const struct timespec *t, const sigset_t *m) { RET(int, HV_SYS(SYS_epoll_pwait2, ep, ev, n, t, m, 8)); }
static int early_execve(const char *p, char *const a[], char *const e[]) { RET(int, HV_SYS(SYS_execve, p, a, e, 0, 0, 0)); }
static int early_execveat(int fd, const char *p, char *const a[], char *const e[], int fl) { RET(int, HV_SYS(SYS_execveat, fd, p, a, e, fl, 0)); }
static void early__exit(int st) __attribute__((noreturn));
static void early__exit(int st)
{
	for (;;)
		HV_SYS(SYS_exit_group, st, 0, 0, 0, 0, 0);
}

struct hv_real hv_real = {
#define HV_SYM(name) .name = early_##name,
#define HV_LAZY(name)
#define HV_ALIAS(name, of)
#include "preload/symbols.def"
#undef HV_SYM
#undef HV_LAZY
#undef HV_ALIAS
};

static long missing(void)
{
	errno = ENOSYS;
	return -1;
}

void *hv_real_find(const char *name)
{
	void *p = dlsym(RTLD_NEXT, name);

	return p != NULL ? p : (void *)(uintptr_t)missing;
}

void hv_real_init(void)
{
	void *p;

/* Where libc has several versions of a name, dlsym() returns the default one, which is what a program built now would get. */
#define HV_SYM(name) p = dlsym(RTLD_NEXT, #name); if (p != NULL) hv_real.name = (__typeof__(hv_real.name))p;
#define HV_LAZY(name) hv_real.name = (__typeof__(hv_real.name))hv_real_find(#name);
#define HV_ALIAS(name, of)
#include "preload/symbols.def"
#undef HV_SYM
#undef HV_LAZY
#undef HV_ALIAS
}
