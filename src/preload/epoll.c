/*
 * epoll.c - epoll sets. The engine keeps the mirror of each set's members; here are the descriptors and the sets that we don't follow.
 */
#include "preload/io.h"

static void born(int epfd)
{
	hv_engine_enter();
	struct hv_epoll *ep = hv_epoll_new(epfd);
	hv_engine_leave();
	struct hv_file *f = hv_file_new(HV_KIND_EPOLL, ep);
	hv_tab_set(epfd, f != NULL ? f : HV_FD_OTHER);
}

HV_EXPORT int epoll_create1(int flags)
{
	int fd = REAL(epoll_create1)(flags);

	if (fd >= 0 && !hv_aside())
		born(fd);
	return fd;
}

HV_EXPORT int epoll_create(int size)
{
	int fd = REAL(epoll_create)(size);

	if (fd >= 0 && !hv_aside())
		born(fd);
	return fd;
}

static struct hv_file *epoll_at(int fd)
{
	struct hv_file *f = hv_file_at(fd);

	if (f == NULL || f->kind == HV_KIND_EPOLL)
		return f;
	hv_file_put(f);
	return NULL;
}

static void nest(struct hv_file *f)
{
	if (atomic_exchange(&f->nested, true))
		return;
	hv_engine_enter();
	hv_epoll_set_nested(f->ep);
	hv_engine_leave();
}

HV_EXPORT int epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
	struct hv_file *set, *f;
	int r;

	if (hv_aside())
		return REAL(epoll_ctl)(epfd, op, fd, ev);
	set = epoll_at(epfd);
	f = hv_file_at(fd); /* an unknown socket isn't looked at: it is the kernel's for ever */
	if (f != NULL && f->kind == HV_KIND_EPOLL)
		nest(f);
	if (set != NULL && f != NULL && f->kind == HV_KIND_SOCK)
		hv_fault_need();
	if (set == NULL) {
		/* A set that was made without us: a member of it may never leave the kernel. */
		if (f != NULL && f->kind == HV_KIND_SOCK)
			hv_keep_in_kernel(f->s, HV_WHY_CALL);
		r = REAL(epoll_ctl)(epfd, op, fd, ev);
		if (r < 0)
			r = -errno;
	} else if (f == NULL || f->kind != HV_KIND_SOCK || (op != EPOLL_CTL_DEL && hv_bad(ev, sizeof *ev, HV_TRY_ALL))) {
		r = REAL(epoll_ctl)(epfd, op, fd, ev);
		if (r < 0)
			r = -errno;
	} else {
		hv_engine_enter();
		r = hv_epoll_ctl(set->ep, epfd, op, fd, f->s, ev);
		hv_engine_leave();
	}
	if (f != NULL)
		hv_file_put(f);
	if (set != NULL)
		hv_file_put(set);
	return (int)hv_ret(r);
}

static int wait_on(struct hv_file *set, int epfd, struct epoll_event *ev, int n, int64_t ns, const sigset_t *mask)
{
	int r;

	if (n <= 0 || hv_bad(ev, sizeof *ev, HV_TRY_ALL)) { /* the kernel's verdict */
		r = REAL(epoll_pwait)(epfd, ev, n, ns < 0 ? -1 : ns / 1000000 > INT_MAX ? INT_MAX : (int)(ns / 1000000), mask);
		if (r < 0)
			r = -errno;
	} else {
		hv_testcancel();
		hv_engine_enter();
		r = hv_epoll_wait(set->ep, epfd, ev, n, ns, mask);
		hv_engine_leave();
		if (r == -EINTR)
			hv_testcancel();
	}
	hv_file_put(set);
	return (int)hv_ret(r);
}

HV_EXPORT int epoll_wait(int epfd, struct epoll_event *ev, int n, int timeout)
{
	struct hv_file *set = epoll_at(epfd);

	if (set == NULL)
		return REAL(epoll_wait)(epfd, ev, n, timeout);
	return wait_on(set, epfd, ev, n, timeout < 0 ? -1 : timeout * (int64_t)1000000, NULL);
}

HV_EXPORT int epoll_pwait(int epfd, struct epoll_event *ev, int n, int timeout, const sigset_t *mask)
{
	struct hv_file *set = epoll_at(epfd);

	if (set == NULL)
		return REAL(epoll_pwait)(epfd, ev, n, timeout, mask);
	return wait_on(set, epfd, ev, n, timeout < 0 ? -1 : timeout * (int64_t)1000000, mask);
}

HV_EXPORT int epoll_pwait2(int epfd, struct epoll_event *ev, int n, const struct timespec *ts, const sigset_t *mask)
{
	struct hv_file *set = epoll_at(epfd);

	if (set == NULL)
		return REAL(epoll_pwait2)(epfd, ev, n, ts, mask);
	if (ts != NULL && (hv_bad(ts, sizeof *ts, HV_TRY_ALL) || ts->tv_sec < 0 || (unsigned long)ts->tv_nsec >= 1000000000u)) {
		hv_file_put(set);
		return REAL(epoll_pwait2)(epfd, ev, n, ts, mask);
	}
	int64_t ns = ts == NULL || ts->tv_sec > INT64_MAX / 2000000000 ? -1 : ts->tv_sec * 1000000000 + ts->tv_nsec;
	return wait_on(set, epfd, ev, n, ns, mask);
}
