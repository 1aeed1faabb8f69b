/*
 * opts.c - setsockopt, getsockopt, fcntl, ioctl.
 *
 * An option goes to the kernel's socket first, whatever the tier; its verdict is the caller's, our mirrors follow (architecture rule 4). What it means, and
 * whether the connection has to be alive in the kernel before, is in the table of engine/opt.c.
 */
#include <linux/filter.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/time.h>

#include "preload/io.h"
#include "preload/proc.h"

#ifndef SO_RCVTIMEO_NEW
#define SO_RCVTIMEO_NEW 66
#define SO_SNDTIMEO_NEW 67
#endif

static void mirror_timeout(struct hv_sock *s, int opt, const void *val, socklen_t len)
{
	struct timeval tv;
	_Atomic int64_t *to = opt == SO_RCVTIMEO || opt == SO_RCVTIMEO_NEW ? &s->rcvtimeo_ns : &s->sndtimeo_ns;

	if (len < sizeof tv)
		return;
	memcpy(&tv, val, sizeof tv); /* on 64-bit both forms are two 64-bit words */
	if (tv.tv_sec < 0)
		atomic_store(to, 1); /* the kernel takes it for "don't wait" */
	else if (tv.tv_sec >= INT64_MAX / 2000000000)
		atomic_store(to, 0);
	else
		atomic_store(to, tv.tv_sec * 1000000000 + tv.tv_usec * 1000);
}

HV_EXPORT int setsockopt(int fd, int level, int opt, const void *val, socklen_t len)
{
	struct hv_file *f = hv_sock_at(fd);
	enum hv_opt_end end = HV_OPT_FINE;
	int r;

	if (f == NULL)
		return REAL(setsockopt)(fd, level, opt, val, len);
	struct hv_sock *s = f->s;
	for (;;) {
		bool vf = hv_sock_vf(s);
		if (vf && hv_sock_option_live(s, level, opt, true)) {
			hv_to_kernel(s, HV_WHY_OPTION);
			continue;
		}
		if (!vf && !hv_kernel_enter(s)) /* a promotion reads the options: before or after, not in between */
			continue;
		r = REAL(setsockopt)(fd, level, opt, val, len);
		if (r < 0)
			r = -errno;
		if (r == 0) {
			hv_engine_enter();
			end = hv_sock_option(s, level, opt, val, len);
			hv_engine_leave();
		}
		if (!vf)
			hv_kernel_leave(s, 0);
		if (r == 0 && level == SOL_SOCKET && (opt == SO_RCVTIMEO || opt == SO_SNDTIMEO || opt == SO_RCVTIMEO_NEW || opt == SO_SNDTIMEO_NEW))
			mirror_timeout(s, opt, val, len);
		if (end == HV_OPT_PIN)
			hv_keep_in_kernel(s, HV_WHY_OPTION);
		else if (end == HV_OPT_KERNEL)
			hv_to_kernel(s, HV_WHY_OPTION);
		break;
	}
	hv_file_put(f);
	return (int)hv_ret(r);
}

HV_EXPORT int getsockopt(int fd, int level, int opt, void *restrict val, socklen_t *restrict len)
{
	struct hv_file *f = hv_sock_at(fd);
	int r = 0;

	if (f == NULL)
		return REAL(getsockopt)(fd, level, opt, val, len);
	struct hv_sock *s = f->s;
	if (hv_sock_vf(s) && hv_sock_option_live(s, level, opt, false))
		hv_to_kernel(s, HV_WHY_OPTION);
	if (hv_sock_vf(s) && !hv_bad(len, sizeof *len, HV_TRY_ALL) && (int)*len >= 0 && !hv_bad(val, *len, HV_TRY_ALL)) {
		hv_engine_enter();
		r = hv_vf_getsockopt(s, level, opt, val, len);
		hv_engine_leave();
		if (r > 0 || (r < 0 && r != HV_MOVED)) {
			hv_file_put(f);
			return (int)hv_ret(r > 0 ? 0 : r);
		}
	}
	for (;;) { /* not in the middle of a move: half of the options would be the parked socket's */
		bool vf = hv_sock_vf(s);
		if (!vf && !hv_kernel_enter(s))
			continue;
		r = REAL(getsockopt)(fd, level, opt, val, len);
		if (r < 0)
			r = -errno;
		else if (!vf && level == IPPROTO_TCP && opt == TCP_INFO)
			hv_kernel_info(s, val, *len);
		else if (level == SOL_SOCKET && opt == SO_ERROR && *len == sizeof(int) && *(int *)val == 0)
			*(int *)val = hv_error_take(s);
		if (!vf)
			hv_kernel_leave(s, 0);
		break;
	}
	hv_file_put(f);
	return (int)hv_ret(r);
}

/* ---- fcntl ---- */

/* A program that is started later may have it. */
static void leaks(int fd)
{
	struct hv_file *f = hv_file_at(fd);
	int e = errno;

	if (f == NULL)
		return;
	if (f->kind == HV_KIND_SOCK) {
		hv_engine_enter();
		hv_sock_leaks(f->s);
		hv_engine_leave();
	}
	hv_file_put(f);
	errno = e;
}

HV_EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	va_start(ap, cmd);
	long arg = va_arg(ap, long);
	va_end(ap);

	switch (cmd) {
	case F_DUPFD:
	case F_DUPFD_CLOEXEC:
		return hv_tab_duplicated(fd, REAL(fcntl)(fd, cmd, arg));
	case F_SETFD:
		if ((arg & FD_CLOEXEC) == 0)
			leaks(fd);
		return REAL(fcntl)(fd, cmd, arg);
	case F_SETFL:
	case F_SETOWN:
	case F_SETOWN_EX:
	case F_SETSIG:
		break;
	default:
		return REAL(fcntl)(fd, cmd, arg);
	}
	struct hv_file *f = hv_sock_at(fd);
	if (f == NULL)
		return REAL(fcntl)(fd, cmd, arg);
	if (cmd != F_SETFL || (arg & O_ASYNC) != 0) /* SIGIO comes from the kernel's socket */
		hv_keep_in_kernel(f->s, HV_WHY_CALL);
	int r = REAL(fcntl)(fd, cmd, arg), e = errno;
	if (r == 0 && cmd == F_SETFL)
		atomic_store(&f->s->nonblock, (arg & O_NONBLOCK) != 0);
	hv_file_put(f);
	errno = e;
	return r;
}

/* ---- ioctl ---- */

static int queue(struct hv_sock *s, int fd, unsigned long req, int *out)
{
	int r;

	for (;;) {
		if (hv_sock_vf(s)) {
			if (hv_bad(out, sizeof *out, HV_TRY_ALL))
				return -EFAULT;
			hv_engine_enter();
			r = hv_vf_queue(s, req);
			hv_engine_leave();
			if (r == HV_MOVED)
				continue;
			if (r >= 0) {
				*out = r;
				r = 0;
			}
			return r;
		}
		if (!hv_kernel_enter(s))
			continue;
		r = REAL(ioctl)(fd, req, out);
		if (r < 0)
			r = -errno;
		hv_kernel_leave(s, 0);
		return r;
	}
}

HV_EXPORT int ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	va_start(ap, req);
	void *arg = va_arg(ap, void *);
	va_end(ap);
	struct hv_file *f;
	int r;

	if ((unsigned)req == FIONCLEX)
		leaks(fd);
	switch ((unsigned)req) {
	case FIONBIO:
	case FIOASYNC:
	case FIOSETOWN:
	case SIOCSPGRP:
	case SIOCINQ:
	case SIOCOUTQ:
	case SIOCOUTQNSD:
	case SIOCATMARK:
	case SIOCGSTAMP_OLD:
	case SIOCGSTAMPNS_OLD:
	case (unsigned)SIOCGSTAMP_NEW:
	case (unsigned)SIOCGSTAMPNS_NEW:
		f = hv_sock_at(fd);
		break;
	default:
		f = NULL;
		break;
	}
	if (f == NULL)
		return REAL(ioctl)(fd, req, arg);
	switch ((unsigned)req) {
	case FIONBIO:
		r = REAL(ioctl)(fd, req, arg);
		if (r < 0)
			r = -errno;
		else
			atomic_store(&f->s->nonblock, *(const int *)arg != 0);
		break;
	case SIOCINQ:
	case SIOCOUTQ:
	case SIOCOUTQNSD:
		r = queue(f->s, fd, req, arg);
		break;
	case SIOCATMARK:
		hv_kernel_hold(f->s, HV_WHY_CALL);
		r = REAL(ioctl)(fd, req, arg);
		if (r < 0)
			r = -errno;
		hv_kernel_leave(f->s, 0);
		break;
	default: /* who gets SIGIO and SIGURG; when the last packet came, and a socket that was asked once stamps all of them */
		hv_keep_in_kernel(f->s, HV_WHY_CALL);
		r = REAL(ioctl)(fd, req, arg);
		if (r < 0)
			r = -errno;
		break;
	}
	hv_file_put(f);
	return (int)hv_ret(r);
}

int __fcntl(int fd, int cmd, ...) HV_ALSO(fcntl);
int fcntl64(int fd, int cmd, ...) HV_ALSO(fcntl);
