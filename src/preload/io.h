/*
 * io.h - what the data hooks share: waiting, timeouts, cancellation, arguments that only the kernel may judge.
 */
#ifndef HV_PRELOAD_IO_H
#define HV_PRELOAD_IO_H

#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/single_threaded.h>
#include <sys/uio.h>

#include "base/sys.h"
#include "engine/engine.h"
#include "preload/enter.h"
#include "preload/fdtab.h"
#include "preload/real.h"

static inline void hv_testcancel(void)
{
	if (!__libc_single_threaded)
		pthread_testcancel();
}

#if defined(__aarch64__)
#define HV_ADDRESSES ((uintptr_t)1 << 52)
#else
#define HV_ADDRESSES ((uintptr_t)1 << 47)
#endif

/* An address that can't be a buffer: the kernel says EFAULT, we would fault. An unmapped address that looks good isn't found out. */
static inline bool hv_bad_range(const void *p, size_t len)
{
	uintptr_t a = (uintptr_t)p;
	return len != 0 && (a < 65536 || len > (size_t)INT64_MAX || a + len > HV_ADDRESSES);
}

static inline bool hv_bad_iov(const struct iovec *v, size_t n, size_t *total)
{
	*total = 0;
	if (n != 0 && hv_bad_range(v, n * sizeof *v))
		return true;
	for (size_t i = 0; i < n; i++) {
		if (hv_bad_range(v[i].iov_base, v[i].iov_len))
			return true;
		*total += v[i].iov_len;
	}
	return *total > (size_t)SSIZE_MAX;
}

/* The policy's look at a kernel-tier socket. */
static inline void hv_touch(struct hv_sock *s, int fd, enum hv_dir dir)
{
	if (atomic_load_explicit(&s->pinned, memory_order_relaxed))
		return;
	hv_engine_enter();
	hv_sock_touch(s, fd, dir);
	hv_engine_leave();
}

static inline void hv_to_kernel(struct hv_sock *s, enum hv_why why)
{
	if (!hv_sock_vf(s))
		return;
	hv_engine_enter();
	hv_sock_demote(s, why);
	hv_engine_leave();
}

static inline void hv_keep_in_kernel(struct hv_sock *s, enum hv_why why)
{
	hv_engine_enter();
	hv_sock_pin(s, why);
	hv_engine_leave();
}

/* Moves the socket to the kernel and holds it there until hv_kernel_leave(). */
static inline void hv_kernel_hold(struct hv_sock *s, enum hv_why why)
{
	do
		hv_to_kernel(s, why);
	while (!hv_kernel_enter(s));
}

/* One wait of a blocking data call. *deadline is 0 before the first. 0: try again; else the call's error. */
int hv_block(struct hv_sock *s, uint32_t events, int64_t *deadline, _Atomic int64_t *timeo);

/* A wait was interrupted: is the call to be restarted? */
bool hv_interrupted(bool norestart);

#endif
