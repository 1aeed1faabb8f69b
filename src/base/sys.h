/*
 * sys.h - raw system calls that return -errno and never touch errno.
 *
 * Inside libhvaccel.so the names of libc's socket calls are our own interposed ones: code below the preload layer must not use
 * them. It uses these. No TLS, no PLT: usable before constructors, in signal handlers and in forked or vforked children.
 */
#ifndef HV_SYS_H
#define HV_SYS_H

#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>

static inline long hv_sys6(long nr, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return ret;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
#else
#error "libhvaccel: only x86-64 and AArch64 are supported"
#endif
}
#define HV_SYS(nr, a, b, c, d, e, f) hv_sys6((nr), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* ThreadSanitizer keeps books on descriptors: one that was closed unnoticed and comes again would look like a race of its two users. */
#if defined(__SANITIZE_THREAD__)
void __sanitizer_syscall_pre_impl_close(long fd);
#define HV_CLOSING(fd) __sanitizer_syscall_pre_impl_close(fd)
#else
#define HV_CLOSING(fd) ((void)0)
#endif
static inline int hv_sys_close(int fd)
{
	HV_CLOSING(fd);
	return (int)HV_SYS(SYS_close, fd, 0, 0, 0, 0, 0);
}
static inline int hv_sys_socket(int d, int t, int p) { return (int)HV_SYS(SYS_socket, d, t, p, 0, 0, 0); }
static inline int hv_sys_bind(int fd, const void *sa, socklen_t l) { return (int)HV_SYS(SYS_bind, fd, sa, l, 0, 0, 0); }
static inline int hv_sys_connect(int fd, const void *sa, socklen_t l) { return (int)HV_SYS(SYS_connect, fd, sa, l, 0, 0, 0); }
static inline int hv_sys_listen(int fd, int n) { return (int)HV_SYS(SYS_listen, fd, n, 0, 0, 0, 0); }
static inline int hv_sys_getsockname(int fd, void *sa, socklen_t *l) { return (int)HV_SYS(SYS_getsockname, fd, sa, l, 0, 0, 0); }
static inline int hv_sys_getpeername(int fd, void *sa, socklen_t *l) { return (int)HV_SYS(SYS_getpeername, fd, sa, l, 0, 0, 0); }
static inline int hv_sys_setsockopt(int fd, int lvl, int opt, const void *v, socklen_t l) { return (int)HV_SYS(SYS_setsockopt, fd, lvl, opt, v, l, 0); }
static inline int hv_sys_getsockopt(int fd, int lvl, int opt, void *v, socklen_t *l) { return (int)HV_SYS(SYS_getsockopt, fd, lvl, opt, v, l, 0); }
static inline int hv_sys_setint(int fd, int lvl, int opt, int v) { return hv_sys_setsockopt(fd, lvl, opt, &v, sizeof v); }
/* the option's value, or -errno; only for options whose values are >= 0 */
static inline int hv_sys_getint(int fd, int lvl, int opt)
{
	int v = 0;
	socklen_t l = sizeof v;
	int r = hv_sys_getsockopt(fd, lvl, opt, &v, &l);
	return r < 0 ? r : v;
}
static inline ssize_t hv_sys_read(int fd, void *p, size_t n) { return HV_SYS(SYS_read, fd, p, n, 0, 0, 0); }
static inline ssize_t hv_sys_write(int fd, const void *p, size_t n) { return HV_SYS(SYS_write, fd, p, n, 0, 0, 0); }
static inline ssize_t hv_sys_recv(int fd, void *p, size_t n, int fl) { return HV_SYS(SYS_recvfrom, fd, p, n, fl, 0, 0); }
static inline ssize_t hv_sys_send(int fd, const void *p, size_t n, int fl) { return HV_SYS(SYS_sendto, fd, p, n, fl, 0, 0); }
static inline ssize_t hv_sys_sendto(int fd, const void *p, size_t n, int fl, const void *sa, socklen_t l) { return HV_SYS(SYS_sendto, fd, p, n, fl, sa, l); }
static inline ssize_t hv_sys_sendmsg(int fd, const struct msghdr *m, int fl) { return HV_SYS(SYS_sendmsg, fd, m, fl, 0, 0, 0); }
static inline ssize_t hv_sys_recvmsg(int fd, struct msghdr *m, int fl) { return HV_SYS(SYS_recvmsg, fd, m, fl, 0, 0, 0); }
static inline int hv_sys_ioctl(int fd, unsigned long req, void *p) { return (int)HV_SYS(SYS_ioctl, fd, req, p, 0, 0, 0); }
static inline int hv_sys_fcntl(int fd, int cmd, long arg) { return (int)HV_SYS(SYS_fcntl, fd, cmd, arg, 0, 0, 0); }
/* Another name of fd out of the range that programs pick numbers from; lower where RLIMIT_NOFILE is. */
static inline int hv_sys_dup_high(int fd)
{
	int h = hv_sys_fcntl(fd, 1030 /* F_DUPFD_CLOEXEC */, 700);

	return h >= 0 ? h : hv_sys_fcntl(fd, 1030, 64);
}
/* Moves a descriptor of ours out of the range that programs pick numbers from (dup2 to a small one, close of all up to 255 ...), close-on-exec. The same
 * number, or a negative errno handed through, where that isn't possible. */
static inline int hv_sys_high(int fd)
{
	if (fd < 0)
		return fd;
	int h = hv_sys_dup_high(fd);
	if (h < 0)
		return fd;
	hv_sys_close(fd);
	return h;
}
static inline int hv_sys_ppoll(struct pollfd *p, nfds_t n, const struct timespec *ts, const sigset_t *m)
{
	struct timespec t, *tp = NULL;
	if (ts != NULL) { /* the kernel writes the remaining time back */
		t = *ts;
		tp = &t;
	}
	return (int)HV_SYS(SYS_ppoll, p, n, tp, m, 8, 0);
}
static inline int hv_sys_epoll_create1(int fl) { return (int)HV_SYS(SYS_epoll_create1, fl, 0, 0, 0, 0, 0); }
static inline int hv_sys_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev) { return (int)HV_SYS(SYS_epoll_ctl, ep, op, fd, ev, 0, 0); }
static inline int hv_sys_epoll_pwait(int ep, struct epoll_event *ev, int n, int ms, const sigset_t *m) { return (int)HV_SYS(SYS_epoll_pwait, ep, ev, n, ms, m, 8); }
/* ts NULL = for ever. -ENOSYS before Linux 5.11. */
static inline int hv_sys_epoll_pwait2(int ep, struct epoll_event *ev, int n, const struct timespec *ts, const sigset_t *m) { return (int)HV_SYS(SYS_epoll_pwait2, ep, ev, n, ts, m, 8); }
static inline int hv_sys_eventfd(unsigned v, int fl) { return (int)HV_SYS(SYS_eventfd2, v, fl, 0, 0, 0, 0); }
static inline long hv_sys_futex(uint32_t *p, int op, uint32_t v, const struct timespec *ts) { return HV_SYS(SYS_futex, p, op, v, ts, 0, 0); }
static inline int hv_sys_gettid(void) { return (int)HV_SYS(SYS_gettid, 0, 0, 0, 0, 0, 0); }
static inline int hv_sys_getpid(void) { return (int)HV_SYS(SYS_getpid, 0, 0, 0, 0, 0, 0); }

/* CLOCK_MONOTONIC; goes through the vDSO (clock_gettime isn't interposed). */
static inline uint64_t hv_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static inline uint64_t hv_now_us(void) { return hv_now_ns() / 1000u; }

#endif
