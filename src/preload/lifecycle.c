/*
 * lifecycle.c - birth and death of descriptors: socket, accept, connect, close, dup and what else changes the table.
 *
 * A vforked child runs in its parent's memory with descriptors of its own: there the table must not change (hv_borrowed()).
 */
#include <linux/close_range.h>
#include <netinet/in.h>
#include <string.h>

#include "preload/io.h"
#include "preload/proc.h"

static bool wanted(int domain, int type, int proto)
{
	type &= 0xf;
	if (domain != AF_INET && domain != AF_INET6)
		return false;
	return (type == SOCK_STREAM && (proto == 0 || proto == IPPROTO_TCP)) || (type == SOCK_DGRAM && (proto == 0 || proto == IPPROTO_UDP));
}

/* A socket that this process has just made. */
static struct hv_sock *born(int fd, int domain, int type, bool nonblock)
{
	hv_engine_enter();
	struct hv_sock *s = hv_sock_new(fd, domain, type, nonblock);
	hv_engine_leave();
	return s;
}

static void enlist(int fd, struct hv_sock *s)
{
	struct hv_file *f = hv_file_new(HV_KIND_SOCK, s);
	hv_tab_set(fd, f != NULL ? f : HV_FD_OTHER);
}

static int64_t timeo(int fd, int opt)
{
	struct timeval tv = { 0, 0 };
	socklen_t l = sizeof tv;

	if (hv_sys_getsockopt(fd, SOL_SOCKET, opt, &tv, &l) < 0)
		return 0;
	return tv.tv_sec * 1000000000 + tv.tv_usec * 1000;
}

/* A number that we know nothing of: inherited, passed, or made behind our back. Whoever gave it to us may still use it, so it stays in the kernel. */
struct hv_file *hv_sock_probe(int fd)
{
	if ((unsigned)fd >= HV_FD_MAX)
		return NULL;
	int domain = hv_sys_getint(fd, SOL_SOCKET, SO_DOMAIN);
	if (domain == -EBADF)
		return NULL;
	int type = domain < 0 ? domain : hv_sys_getint(fd, SOL_SOCKET, SO_TYPE);
	int proto = type < 0 ? type : hv_sys_getint(fd, SOL_SOCKET, SO_PROTOCOL);
	if (proto < 0 || !wanted(domain, type, proto)) {
		hv_tab_settle(fd, HV_FD_OTHER);
		return NULL;
	}
	if (hv_borrowed())
		return NULL;
	int fl = hv_sys_fcntl(fd, F_GETFL, 0);
	struct hv_sock *s = born(fd, domain, type, fl >= 0 && (fl & O_NONBLOCK) != 0);
	if (s == NULL)
		return NULL;
	atomic_store(&s->rcvtimeo_ns, timeo(fd, SO_RCVTIMEO));
	atomic_store(&s->sndtimeo_ns, timeo(fd, SO_SNDTIMEO));
	hv_keep_in_kernel(s, HV_WHY_PASSED);
	struct hv_file *f = hv_file_new(HV_KIND_SOCK, s);
	if (f != NULL)
		hv_tab_settle(fd, f);
	return hv_tab_ref(fd);
}

HV_EXPORT int socket(int domain, int type, int proto)
{
	int fd = REAL(socket)(domain, type, proto);

	if (fd < 0 || hv_aside() || hv_borrowed())
		return fd;
	if (wanted(domain, type, proto))
		enlist(fd, born(fd, domain, type & 0xf, (type & SOCK_NONBLOCK) != 0));
	else
		hv_tab_set(fd, HV_FD_OTHER);
	return fd;
}

HV_EXPORT int socketpair(int domain, int type, int proto, int v[2])
{
	int r = REAL(socketpair)(domain, type, proto, v);

	if (r == 0 && !hv_aside() && !hv_borrowed()) {
		hv_tab_set(v[0], HV_FD_OTHER);
		hv_tab_set(v[1], HV_FD_OTHER);
	}
	return r;
}

/* A listening socket has no data to move: it is a place to find family and type, and what is inherited. */
static void accepted(int fd, struct hv_file *l, bool nonblock)
{
	struct hv_sock *s = born(fd, l->s->family, l->s->type, nonblock);

	if (s != NULL) {
		atomic_store_explicit(&s->rcvtimeo_ns, atomic_load_explicit(&l->s->rcvtimeo_ns, memory_order_relaxed), memory_order_relaxed);
		atomic_store_explicit(&s->sndtimeo_ns, atomic_load_explicit(&l->s->sndtimeo_ns, memory_order_relaxed), memory_order_relaxed);
		hv_engine_enter();
		hv_sock_inherit(s, l->s);
		hv_engine_leave();
	}
	enlist(fd, s);
}

HV_EXPORT int accept(int fd, struct sockaddr *restrict sa, socklen_t *restrict len)
{
	struct hv_file *l = hv_sock_at(fd);
	int r = REAL(accept)(fd, sa, len);

	if (r >= 0 && l != NULL && !hv_borrowed())
		accepted(r, l, false);
	else if (r >= 0 && !hv_aside() && !hv_borrowed())
		hv_tab_set(r, hv_tab_known(fd) ? HV_FD_OTHER : HV_FD_UNKNOWN);
	if (l != NULL)
		hv_file_put(l);
	return r;
}

HV_EXPORT int accept4(int fd, struct sockaddr *restrict sa, socklen_t *restrict len, int flags)
{
	struct hv_file *l = hv_sock_at(fd);
	int r = REAL(accept4)(fd, sa, len, flags);

	if (r >= 0 && l != NULL && !hv_borrowed())
		accepted(r, l, (flags & SOCK_NONBLOCK) != 0);
	else if (r >= 0 && !hv_aside() && !hv_borrowed())
		hv_tab_set(r, hv_tab_known(fd) ? HV_FD_OTHER : HV_FD_UNKNOWN);
	if (l != NULL)
		hv_file_put(l);
	return r;
}

/* ---- calls that change what the connection is: the kernel's, on a live socket ---- */

static void named(struct hv_sock *s, int fd)
{
	hv_engine_enter();
	hv_udp_named(s, fd);
	hv_engine_leave();
}

#define HELD(fd, why, call)                              \
	do {                                             \
		struct hv_file *f_ = hv_sock_at(fd);     \
		if (f_ == NULL)                          \
			return call;                     \
		hv_kernel_hold(f_->s, why);              \
		int r_ = call, e_ = errno;               \
		hv_kernel_leave(f_->s, 0);               \
		if (f_->s->type == SOCK_DGRAM)           \
			named(f_->s, fd);                \
		hv_file_put(f_);                         \
		errno = e_;                              \
		return r_;                               \
	} while (0)

HV_EXPORT int connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	HELD(fd, HV_WHY_CALL, REAL(connect)(fd, sa, len));
}

HV_EXPORT int bind(int fd, const struct sockaddr *sa, socklen_t len)
{
	HELD(fd, HV_WHY_CALL, REAL(bind)(fd, sa, len));
}

HV_EXPORT int listen(int fd, int backlog)
{
	HELD(fd, HV_WHY_CALL, REAL(listen)(fd, backlog));
}

HV_EXPORT int shutdown(int fd, int how)
{
	struct hv_file *f = hv_sock_at(fd);

	if (f == NULL)
		return REAL(shutdown)(fd, how);
	if (how >= SHUT_RD && how <= SHUT_RDWR) /* half a connection is the kernel's business */
		hv_keep_in_kernel(f->s, HV_WHY_SHUTDOWN);
	hv_kernel_hold(f->s, HV_WHY_SHUTDOWN);
	int r = REAL(shutdown)(fd, how), e = errno;
	hv_kernel_leave(f->s, 0);
	hv_file_put(f);
	errno = e;
	return r;
}

/* ---- close ---- */

#define OWN 1024

/* The library's own descriptors, which a program that closes everything doesn't know of. There are none before the first promotion. */
static int own_fds(int fds[OWN])
{
	if (!hv_fault_ready)
		return 0;
	hv_engine_enter();
	int n = hv_engine_fds(fds, OWN);
	hv_engine_leave();
	return n;
}

static bool own_fd(int fd)
{
	int fds[OWN], n = own_fds(fds);

	for (int i = 0; i < n; i++)
		if (fds[i] == fd)
			return true;
	return false;
}

static int close_around(unsigned first, unsigned last, int flags)
{
	int fds[OWN], n = own_fds(fds), r = 0;

	for (int i = 0; i < n; i++) /* few; qsort() might allocate */
		for (int j = i; j > 0 && fds[j - 1] > fds[j]; j--) {
			int t = fds[j];
			fds[j] = fds[j - 1];
			fds[j - 1] = t;
		}
	for (int i = 0; i < n && r == 0; i++) {
		unsigned fd = (unsigned)fds[i];
		if (fds[i] < 0 || fd < first || fd > last)
			continue;
		if (fd > first)
			r = REAL(close_range)(first, fd - 1, flags);
		first = fd + 1;
	}
	return r != 0 || first > last ? r : REAL(close_range)(first, last, flags);
}

HV_EXPORT int close(int fd)
{
	if (hv_aside())
		return REAL(close)(fd);
	if (!hv_tab_ours(fd) && hv_fault_ready && !hv_borrowed() && own_fd(fd))
		return (int)hv_ret(-EBADF);
	if (!hv_tab_known(fd) || (hv_tab_ours(fd) && hv_borrowed()))
		return REAL(close)(fd);
	int e = errno;
	bool ours = hv_tab_drop(fd);
	errno = e;
	int r = REAL(close)(fd);
	if (ours)
		hv_tab_gone(fd);
	return r;
}

static void drop_one(int fd, struct hv_file *f, void *arg)
{
	(void)f;
	(void)arg;
	hv_tab_drop(fd);
}

static void pin_one(int fd, struct hv_file *f, void *arg)
{
	(void)fd;
	(void)arg;
	if (f->kind == HV_KIND_SOCK)
		hv_keep_in_kernel(f->s, HV_WHY_CALL);
}

HV_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
	if (hv_aside() || first > last || (flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)) != 0 || (flags & CLOSE_RANGE_CLOEXEC) != 0 || hv_borrowed())
		return REAL(close_range)(first, last, flags);
	int e = errno;
	if ((flags & CLOSE_RANGE_UNSHARE) != 0 && !__libc_single_threaded) {
		/* Afterwards this thread has a table of its own, and other threads keep these descriptors. */
		hv_tab_each(first, last, pin_one, NULL);
		errno = e;
		return REAL(close_range)(first, last, flags);
	}
	hv_tab_each(first, last, drop_one, NULL);
	errno = e;
	int r = close_around(first, last, flags);
	hv_tab_gone_range(first, last);
	return r;
}

HV_EXPORT void closefrom(int low)
{
	unsigned first = low < 0 ? 0 : (unsigned)low;

	if (hv_aside() || hv_borrowed()) {
		REAL_LAZY(closefrom)(low);
		return;
	}
	int e = errno;
	hv_tab_each(first, HV_FD_MAX - 1, drop_one, NULL);
	if (close_around(first, UINT_MAX, 0) != 0)
		REAL_LAZY(closefrom)(low);
	errno = e;
	hv_tab_gone_range(first, HV_FD_MAX - 1);
}

/* ---- dup ---- */

static int shared(int old, int fd)
{
	if (fd < 0 || hv_aside())
		return fd;
	int e = errno;
	struct hv_file *f = hv_tab_ref(old);
	if (hv_borrowed()) { /* for a program that is started next; the number is the child's, the socket its parent's */
		if (f != NULL) {
			if (f->kind == HV_KIND_SOCK && (hv_sys_fcntl(fd, F_GETFD, 0) & FD_CLOEXEC) == 0)
				hv_keep_in_kernel(f->s, HV_WHY_EXEC);
			hv_file_put(f);
		}
		errno = e;
		return fd;
	}
	if (f != NULL) {
		hv_tab_share(fd, f);
		hv_file_put(f);
	} else {
		hv_tab_set(fd, HV_FD_UNKNOWN);
	}
	errno = e;
	return fd;
}

HV_EXPORT int dup(int fd)
{
	return shared(fd, REAL(dup)(fd));
}

/* The descriptor at `to` is closed on the way. A call that is going to fail must leave it alone, so the usual reasons are looked for first. */
static int replace(int from, int to, int flags, bool three)
{
	if (!hv_aside() && from != to && hv_tab_known(to) && !hv_borrowed() && (flags & ~O_CLOEXEC) == 0 && hv_sys_fcntl(from, F_GETFD, 0) >= 0 &&
	    hv_sys_fcntl(to, F_GETFD, 0) >= 0) {
		int e = errno;
		bool ours = hv_tab_drop(to);
		errno = e;
		int r = three ? REAL(dup3)(from, to, flags) : REAL(dup2)(from, to);
		if (r < 0) {
			e = errno;
			if (ours) { /* open still, but its object is gone: whatever it is, it stays in the kernel */
				hv_tab_gone(to);
				hv_tab_settle(to, HV_FD_OTHER);
			}
			errno = e;
			return r;
		}
		return shared(from, r);
	}
	int r = three ? REAL(dup3)(from, to, flags) : REAL(dup2)(from, to);
	return from == to ? r : shared(from, r);
}

HV_EXPORT int dup2(int from, int to)
{
	return replace(from, to, 0, false);
}

HV_EXPORT int dup3(int from, int to, int flags)
{
	return replace(from, to, flags, true);
}

int hv_tab_duplicated(int old, int fd)
{
	return shared(old, fd);
}

int __connect(int fd, const struct sockaddr *sa, socklen_t len) HV_ALSO(connect);
int __close(int fd) HV_ALSO(close);
int __dup2(int from, int to) HV_ALSO(dup2);
