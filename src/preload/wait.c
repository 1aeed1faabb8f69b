/*
 * wait.c - poll, ppoll, select, pselect.
 *
 * A set without a VF-tier member is one real call, made while each followed socket of it is held in the kernel. Otherwise the set goes to hv_poll(). Descriptors
 * aren't looked at for the first time here: data calls do that.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "preload/io.h"

#define ON_STACK 64u

struct set {
	struct hv_pollent *ents;
	struct hv_file **files; /* files[i] belongs to ents[i] */
	unsigned n, held;
	bool tracked, vf;
	void *mem;
	size_t mem_len;
};

/* Room for n entries: the caller's arrays, or a mapping (no malloc: a signal handler may be calling). */
static bool room(struct set *st, unsigned n)
{
	if (n <= ON_STACK)
		return true;
	st->mem_len = (size_t)n * (sizeof *st->ents + sizeof *st->files);
	long p = HV_SYS(SYS_mmap, NULL, st->mem_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p < 0 && p > -4096)
		return false;
	st->mem = (void *)p;
	st->files = st->mem;
	st->ents = (void *)(st->files + n);
	return true;
}

static void add(struct set *st, int fd, short events)
{
	struct hv_file *f = fd >= 0 ? hv_tab_ref(fd) : NULL;
	struct hv_pollent *e = &st->ents[st->n];

	*e = (struct hv_pollent){ .fd = fd, .events = events };
	st->files[st->n++] = f;
	if (f == NULL)
		return;
	if (f->kind == HV_KIND_SOCK) {
		e->s = f->s;
		st->tracked = true;
		st->vf |= hv_sock_vf(f->s);
		return;
	}
	if (!atomic_exchange(&f->nested, true)) {
		hv_engine_enter();
		hv_epoll_set_nested(f->ep);
		hv_engine_leave();
	}
	st->vf |= hv_epoll_active(f->ep);
}

/* All kernel-tier, and held there? If not, nothing is held. */
static bool hold(struct set *st)
{
	if (st->vf)
		return false;
	for (unsigned i = 0; i < st->n; i++) {
		struct hv_sock *s = st->ents[i].s;
		if (s != NULL && !hv_kernel_enter(s)) {
			while (i-- > 0)
				if (st->ents[i].s != NULL)
					hv_kernel_leave(st->ents[i].s, 0);
			return false;
		}
	}
	return true;
}

static void release(struct set *st)
{
	for (unsigned i = 0; i < st->n; i++)
		if (st->ents[i].s != NULL)
			hv_kernel_leave(st->ents[i].s, 0);
}

static void drop(struct set *st)
{
	for (unsigned i = 0; i < st->n; i++)
		if (st->files[i] != NULL)
			hv_file_put(st->files[i]);
}

static void done(struct set *st)
{
	drop(st);
	if (st->mem != NULL)
		HV_SYS(SYS_munmap, st->mem, st->mem_len, 0, 0, 0, 0);
}

/* The engine can't sleep for this set, whose sockets are in the kernel now. */
static void again(struct set *st)
{
	drop(st);
	st->n = 0;
	st->tracked = st->vf = false;
}

static int engine_poll(struct set *st, int64_t deadline, const sigset_t *mask)
{
	hv_testcancel();
	hv_engine_enter();
	int r = hv_poll(st->ents, st->n, deadline, mask);
	hv_engine_leave();
	if (r == -EINTR)
		hv_testcancel();
	return r;
}

static int64_t deadline_in(const struct timespec *ts)
{
	if (ts == NULL)
		return INT64_MAX;
	if (ts->tv_sec > INT64_MAX / 2000000000)
		return INT64_MAX;
	return (int64_t)hv_now_ns() + ts->tv_sec * 1000000000 + ts->tv_nsec;
}

/* -1: the caller makes the real call, with what hold() took still held; else the result. */
static int poll_set(struct set *st, struct pollfd *fds, unsigned n, const struct timespec *ts, const sigset_t *mask, bool *real)
{
	for (;;) {
		*real = true;
		for (unsigned i = 0; i < n; i++)
			add(st, fds[i].fd, fds[i].events);
		if (!st->tracked && !st->vf)
			return 0;
		if (hold(st)) {
			st->held = 1;
			return 0;
		}
		*real = false;
		if (ts != NULL && (ts->tv_sec < 0 || (unsigned long)ts->tv_nsec >= 1000000000u))
			return -EINVAL;
		int r = engine_poll(st, deadline_in(ts), mask);
		if (r >= 0)
			for (unsigned i = 0; i < n; i++)
				fds[i].revents = st->ents[i].revents;
		if (r != HV_MOVED)
			return r;
		again(st);
	}
}

/* Nothing that we could follow is in any set; else the set is going to be read. */
static bool aside(void)
{
	if (hv_aside() || !atomic_load_explicit(&hv_tab_used, memory_order_relaxed))
		return true;
	hv_fault_need();
	return false;
}

/* A set too large to be looked at is the kernel's to refuse. */
static bool pass(const struct pollfd *fds, nfds_t n)
{
	return aside() || n == 0 || n > HV_FD_MAX || hv_bad(fds, n * sizeof *fds, HV_TRY_ALL);
}

HV_EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	struct hv_pollent ents[ON_STACK];
	struct hv_file *files[ON_STACK];
	struct set st = { .ents = ents, .files = files };
	struct timespec ts = { timeout / 1000, timeout % 1000 * 1000000L };
	bool real;

	if (pass(fds, n) || !room(&st, (unsigned)n))
		return REAL(poll)(fds, n, timeout);
	int r = poll_set(&st, fds, (unsigned)n, timeout < 0 ? NULL : &ts, NULL, &real);
	if (real) {
		r = REAL(poll)(fds, n, timeout);
		if (r < 0)
			r = -errno;
		if (st.held)
			release(&st);
	}
	done(&st);
	return (int)hv_ret(r);
}

HV_EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask)
{
	struct hv_pollent ents[ON_STACK];
	struct hv_file *files[ON_STACK];
	struct set st = { .ents = ents, .files = files };
	bool real;

	if (pass(fds, n) || (ts != NULL && hv_bad(ts, sizeof *ts, HV_TRY_ALL)) || !room(&st, (unsigned)n))
		return REAL(ppoll)(fds, n, ts, mask);
	int r = poll_set(&st, fds, (unsigned)n, ts, mask, &real);
	if (real) {
		r = REAL(ppoll)(fds, n, ts, mask);
		if (r < 0)
			r = -errno;
		if (st.held)
			release(&st);
	}
	done(&st);
	return (int)hv_ret(r);
}

HV_EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t roomy)
{
	return roomy / sizeof *fds < n ? REAL_LAZY(__poll_chk)(fds, n, timeout, roomy) : poll(fds, n, timeout);
}

HV_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask, size_t roomy)
{
	return roomy / sizeof *fds < n ? REAL_LAZY(__ppoll_chk)(fds, n, ts, mask, roomy) : ppoll(fds, n, ts, mask);
}

/* ---- select: bitmaps of any length ---- */

#define WORD (8 * sizeof(unsigned long))
#define SEL_IN (POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR)
#define SEL_OUT (POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR)
#define SEL_EX POLLPRI

struct sel {
	int n;
	unsigned long *in, *out, *ex;
};

static unsigned long word(const unsigned long *set, unsigned w)
{
	return set != NULL ? set[w] : 0;
}

static unsigned long bits(const struct sel *q, unsigned w)
{
	unsigned long b = word(q->in, w) | word(q->out, w) | word(q->ex, w);
	unsigned end = (unsigned)q->n - w * (unsigned)WORD;
	return end < WORD ? b & ((1ul << end) - 1) : b;
}

static unsigned words(const struct sel *q)
{
	return ((unsigned)q->n + (unsigned)WORD - 1) / (unsigned)WORD;
}

static unsigned count(const struct sel *q)
{
	unsigned n = 0;

	for (unsigned w = 0; w < words(q); w++)
		n += (unsigned)__builtin_popcountl(bits(q, w));
	return n;
}

static void gather(struct set *st, const struct sel *q)
{
	for (unsigned w = 0; w < words(q); w++) {
		for (unsigned long b = bits(q, w); b != 0; b &= b - 1) {
			unsigned i = (unsigned)__builtin_ctzl(b);
			unsigned long m = 1ul << i;
			short ev = 0;
			ev |= (word(q->in, w) & m) != 0 ? SEL_IN & ~(POLLHUP | POLLERR) : 0;
			ev |= (word(q->out, w) & m) != 0 ? SEL_OUT & ~POLLERR : 0;
			ev |= (word(q->ex, w) & m) != 0 ? SEL_EX : 0;
			add(st, (int)(w * WORD + i), ev);
		}
	}
}

static unsigned report(unsigned long *set, const struct hv_pollent *e, short which)
{
	unsigned long m = 1ul << ((unsigned)e->fd % WORD), *w;

	if (set == NULL)
		return 0;
	w = &set[(unsigned)e->fd / WORD];
	if ((*w & m) == 0)
		return 0;
	if ((e->revents & which) != 0)
		return 1;
	*w &= ~m;
	return 0;
}

static int scatter(const struct set *st, const struct sel *q)
{
	unsigned n = 0;

	for (unsigned i = 0; i < st->n; i++)
		if ((st->ents[i].revents & POLLNVAL) != 0)
			return -EBADF;
	for (unsigned i = 0; i < st->n; i++) {
		n += report(q->in, &st->ents[i], SEL_IN);
		n += report(q->out, &st->ents[i], SEL_OUT);
		n += report(q->ex, &st->ents[i], SEL_EX);
	}
	return (int)n;
}

/* As poll_set(). */
static int select_set(struct set *st, const struct sel *q, int64_t deadline, const sigset_t *mask, bool *real)
{
	for (;;) {
		*real = true;
		gather(st, q);
		if (!st->tracked && !st->vf)
			return 0;
		if (hold(st)) {
			st->held = 1;
			return 0;
		}
		*real = false;
		int r = engine_poll(st, deadline, mask);
		if (r != HV_MOVED)
			return r < 0 ? r : scatter(st, q);
		again(st);
	}
}

/* What has to be known before the sets can be read. */
static bool select_pass(const struct sel *q)
{
	size_t len = q->n > 0 ? ((size_t)q->n + WORD - 1) / WORD * sizeof(long) : 0;

	return aside() || q->n <= 0 || q->n > (int)HV_FD_MAX || (q->in != NULL && hv_bad(q->in, len, HV_TRY_ALL)) || (q->out != NULL && hv_bad(q->out, len, HV_TRY_ALL)) ||
	       (q->ex != NULL && hv_bad(q->ex, len, HV_TRY_ALL));
}

static unsigned long *map(fd_set *s)
{
	return (unsigned long *)s;
}

HV_EXPORT int select(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict ex, struct timeval *restrict tv)
{
	struct hv_pollent ents[ON_STACK];
	struct hv_file *files[ON_STACK];
	struct set st = { .ents = ents, .files = files };
	struct sel q = { n, map(in), map(out), map(ex) };
	struct timespec ts = { 0, 0 };
	bool real;

	if (select_pass(&q) || (tv != NULL && (hv_bad(tv, sizeof *tv, HV_TRY_ALL) || tv->tv_sec < 0 || tv->tv_usec < 0)) || !room(&st, count(&q)))
		return REAL(select)(n, in, out, ex, tv);
	if (tv != NULL) /* microseconds beyond a second are allowed */
		ts = (struct timespec){ tv->tv_sec + tv->tv_usec / 1000000, tv->tv_usec % 1000000 * 1000 };
	int64_t deadline = deadline_in(tv != NULL ? &ts : NULL);
	int r = select_set(&st, &q, deadline, NULL, &real);
	if (real) {
		r = REAL(select)(n, in, out, ex, tv);
		if (r < 0)
			r = -errno;
		if (st.held)
			release(&st);
	} else if (tv != NULL && deadline != INT64_MAX) { /* Linux tells what is left */
		int64_t left = deadline - (int64_t)hv_now_ns();
		if (left < 0)
			left = 0;
		*tv = (struct timeval){ left / 1000000000, left % 1000000000 / 1000 };
	}
	done(&st);
	return (int)hv_ret(r);
}

HV_EXPORT int pselect(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict ex, const struct timespec *restrict ts, const sigset_t *restrict mask)
{
	struct hv_pollent ents[ON_STACK];
	struct hv_file *files[ON_STACK];
	struct set st = { .ents = ents, .files = files };
	struct sel q = { n, map(in), map(out), map(ex) };
	bool real;

	if (select_pass(&q) || (ts != NULL && (hv_bad(ts, sizeof *ts, HV_TRY_ALL) || ts->tv_sec < 0 || (unsigned long)ts->tv_nsec >= 1000000000u)) || !room(&st, count(&q)))
		return REAL(pselect)(n, in, out, ex, ts, mask);
	int r = select_set(&st, &q, deadline_in(ts), mask, &real);
	if (real) {
		r = REAL(pselect)(n, in, out, ex, ts, mask);
		if (r < 0)
			r = -errno;
		if (st.held)
			release(&st);
	}
	done(&st);
	return (int)hv_ret(r);
}

int __poll(struct pollfd *fds, nfds_t n, int timeout) HV_ALSO(poll);
int __select(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict ex, struct timeval *restrict tv) HV_ALSO(select);
