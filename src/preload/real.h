/*
 * real.h - the functions behind ours: the next definition of each interposed name.
 *
 * REAL(name) may be called at any time, before our constructor too. Everything below the hooks that means "libc's" says REAL(); everything that means
 * "the kernel's" uses base/sys.h.
 */
#ifndef HV_PRELOAD_REAL_H
#define HV_PRELOAD_REAL_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define HV_EXPORT __attribute__((visibility("default")))

/* Exported by libc without a public declaration. */
ssize_t __read_chk(int fd, void *buf, size_t n, size_t room);
ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags, struct sockaddr *sa, socklen_t *len);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask, size_t room);
int __dprintf_chk(int fd, int flag, const char *fmt, ...);
int __vdprintf_chk(int fd, int flag, const char *fmt, va_list ap);
int capset(void *header, const void *data);

/* A second name for a hook of the same file. */
#if __has_attribute(copy)
#define HV_ALSO(of) __attribute__((visibility("default"), alias(#of), copy(of)))
#else
#define HV_ALSO(of) __attribute__((visibility("default"), alias(#of)))
#endif

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* siginterrupt(): old, and still called */
struct hv_real {
#define HV_SYM(name) __typeof__(name) *name;
#define HV_LAZY(name) __typeof__(name) *name;
#define HV_ALIAS(name, of)
#include "preload/symbols.def"
#undef HV_SYM
#undef HV_LAZY
#undef HV_ALIAS
};
#pragma GCC diagnostic pop
extern struct hv_real hv_real;

#define REAL(name) (hv_real.name)
/* For HV_LAZY names. */
#define REAL_LAZY(name) ((hv_real.name) != NULL ? (hv_real.name) : (__typeof__(hv_real.name))hv_real_find(#name))

void hv_real_init(void);
/* Never NULL: a name that libc lacks gets a function that fails with ENOSYS. */
void *hv_real_find(const char *name);

#endif
