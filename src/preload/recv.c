/*
 * recv.c - read, recv and their relatives.
 *
 * All of them end in rx_run(), the loop that engine.h describes. A blocking call on a kernel-tier socket is one real call with the socket held in the kernel: it may sleep
 * there for ever, and the socket isn't promoted meanwhile. Arguments that only the kernel can judge (bad addresses, rare flags) move the socket first.
 */
#include <string.h>

#include "preload/io.h"
#include "preload/pass.h"

enum rx_kind { RX_READ, RX_RECV, RX_RECVFROM, RX_READV, RX_RECVMSG }; /* judge() knows the order */

struct rx {
	int fd;
	enum rx_kind kind;
	int flags;
	void *buf; /* READ, RECV, RECVFROM */
	size_t len;
	struct sockaddr *sa;
	socklen_t *salen;
	const struct iovec *iov; /* READV; RECVMSG: of msg, once judged */
	size_t iovcnt;
	struct msghdr *msg;
};

#define RX_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL | MSG_PEEK | MSG_TRUNC | MSG_WAITALL | MSG_CMSG_CLOEXEC)

int hv_block(struct hv_sock *s, uint32_t events, int64_t *deadline, _Atomic int64_t *timeo)
{
	if (*deadline == 0) {
		int64_t t = atomic_load_explicit(timeo, memory_order_relaxed);
		*deadline = t == 0 ? INT64_MAX : (int64_t)hv_now_ns() + t;
	}
	hv_sig_norestart = false;
	hv_engine_enter();
	int r = hv_wait_sock(s, events, *deadline);
	bool norestart = hv_sig_norestart;
	hv_engine_leave(); /* handlers run here */
	if (r == 0 || r == HV_MOVED)
		return 0;
	if (r == -EINTR && hv_interrupted(norestart | hv_sig_norestart) && *deadline == INT64_MAX)
		return HV_AGAIN;
	return r;
}

bool hv_interrupted(bool norestart)
{
	hv_testcancel(); /* libc's own signal for pthread_cancel() ends waits too */
	return !norestart;
}

static __attribute__((noinline)) ssize_t kernel_rx(const struct rx *r)
{
	ssize_t n = -1;

	switch (r->kind) {
	case RX_READ:
		n = REAL(read)(r->fd, r->buf, r->len);
		break;
	case RX_READV:
		n = REAL(readv)(r->fd, r->iov, (int)r->iovcnt);
		break;
	case RX_RECV:
		n = REAL(recv)(r->fd, r->buf, r->len, r->flags);
		break;
	case RX_RECVFROM:
		n = REAL(recvfrom)(r->fd, r->buf, r->len, r->flags, r->sa, r->salen);
		break;
	case RX_RECVMSG:
		n = REAL(recvmsg)(r->fd, r->msg, r->flags);
		break;
	}
	return n < 0 ? -errno : n;
}

/* What needs a msghdr. */
static __attribute__((noinline)) ssize_t vf_rx_msg(struct hv_sock *s, const struct rx *r)
{
	struct iovec v = { r->buf, r->len };
	struct msghdr m;
	ssize_t n;

	if (r->kind == RX_RECVMSG)
		return hv_vf_recvmsg(s, r->msg, r->flags);
	memset(&m, 0, sizeof m);
	m.msg_iov = r->kind == RX_READV ? (struct iovec *)(uintptr_t)r->iov : &v;
	m.msg_iovlen = r->kind == RX_READV ? r->iovcnt : 1;
	if (r->sa != NULL) {
		m.msg_name = r->sa;
		m.msg_namelen = *r->salen;
	}
	n = hv_vf_recvmsg(s, &m, r->flags);
	if (n >= 0 && r->sa != NULL)
		*r->salen = m.msg_namelen;
	return n;
}

static inline ssize_t vf_rx(struct hv_sock *s, const struct rx *r)
{
	ssize_t n;

	hv_engine_enter();
	if (r->kind == RX_RECVMSG || r->kind == RX_READV || (r->kind == RX_RECVFROM && s->type != SOCK_STREAM)) {
		n = vf_rx_msg(s, r);
	} else {
		n = hv_vf_recv(s, r->buf, r->len, r->flags);
		if (n >= 0 && r->sa != NULL)
			*r->salen = 0; /* as TCP does */
	}
	hv_engine_leave();
	return n;
}

/* Must the kernel do it? -1: yes; else octets wanted. */
static __attribute__((noinline)) ssize_t judge_all(const struct hv_sock *s, struct rx *r)
{
	bool stream = s->type == SOCK_STREAM;
	size_t total = r->len;

	if ((r->flags & ~RX_FLAGS) != 0 || (r->flags & (MSG_PEEK | MSG_WAITALL)) == (MSG_PEEK | MSG_WAITALL))
		return -1;
	hv_fault_need();
	if (r->kind == RX_RECVMSG) {
		const struct msghdr *m = r->msg;
		if (hv_bad(m, sizeof *m, HV_TRY_ALL) || m->msg_iovlen > IOV_MAX || (m->msg_name != NULL && ((int)m->msg_namelen < 0 || hv_bad(m->msg_name, m->msg_namelen, HV_TRY_ALL))))
			return -1;
		r->iov = m->msg_iov;
		r->iovcnt = m->msg_iovlen;
	}
	if (r->sa != NULL && (hv_bad(r->salen, sizeof *r->salen, HV_TRY_ALL) || (int)*r->salen < 0 || hv_bad(r->sa, *r->salen, HV_TRY_ALL)))
		return -1;
	if (r->kind == RX_READV || r->kind == RX_RECVMSG) {
		if (r->iovcnt > IOV_MAX || hv_bad_iov(r->iov, r->iovcnt, HV_TRY_RECV, &total))
			return -1;
	} else if (hv_bad(r->buf, r->len, HV_TRY_RECV) && !(stream && (r->flags & MSG_TRUNC) != 0)) {
		return -1;
	}
	return (ssize_t)total;
}

/* The same for what nearly all calls are, in little code: it shares the first-level cache with the kernel's path of the packet. A stream has no
 * address to give, only the length of none. */
static inline ssize_t judge(const struct hv_sock *s, struct rx *r)
{
	const void *salen = r->sa != NULL ? (const void *)r->salen : r->buf;
	bool usual = r->kind <= RX_RECVFROM && (r->flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL)) == 0 && hv_fault_ready && hv_one_page(salen, 1) &&
		     (hv_one_page(r->buf, r->len) || !hv_bad(r->buf, r->len, HV_TRY_RECV)) && hv_fault_load(r->buf, salen);

	if (__builtin_expect(usual, 1) && (r->sa == NULL || (((uintptr_t)salen & 3) == 0 && (int)*r->salen >= 0 &&
							    (s->type == SOCK_STREAM || (hv_one_page(r->sa, *r->salen) && hv_fault_load(r->sa, r->sa))))))
		return (ssize_t)r->len;
	return judge_all(s, r);
}

static ssize_t rx_run(struct hv_file *f, struct rx *r);

/* MSG_WAITALL into several pieces: one after the other. */
static __attribute__((noinline)) ssize_t rx_pieces(struct hv_file *f, struct rx *r)
{
	ssize_t got = 0, n = 0;

	for (size_t i = 0; i < r->iovcnt; i++) {
		if (r->iov[i].iov_len == 0)
			continue;
		struct rx one = { .fd = r->fd, .kind = RX_RECV, .flags = r->flags, .buf = r->iov[i].iov_base, .len = r->iov[i].iov_len };
		n = rx_run(f, &one);
		if (n > 0)
			got += n;
		if (n != (ssize_t)one.len)
			break;
	}
	if (n < 0) {
		if (got == 0)
			return n;
		hv_error_hold(f->s, (int)-n);
	}
	if (r->msg->msg_name != NULL)
		r->msg->msg_namelen = 0;
	r->msg->msg_controllen = 0;
	r->msg->msg_flags = r->flags & MSG_CMSG_CLOEXEC;
	return got;
}

static ssize_t rx_run(struct hv_file *f, struct rx *r)
{
	struct hv_sock *s = f->s;
	bool all = (r->flags & MSG_WAITALL) != 0 && s->type == SOCK_STREAM, look = true, again = false;
	int64_t deadline = 0;
	ssize_t got = 0, want = 0;

	for (;; again = true) {
		ssize_t n;
		if (__builtin_expect(!hv_sock_vf(s), 0)) {
			if (again && !hv_tab_is(r->fd, f)) /* closed by another thread while we slept; the number may be somebody else's */
				return got != 0 ? got : -EBADF;
			hv_touch(s, r->fd, HV_DIR_RECV);
			int e = s->type != SOCK_STREAM ? hv_error_take(s) : 0;
			if (__builtin_expect(e, 0) != 0)
				return -e;
			if (!hv_kernel_enter(s))
				continue;
			n = kernel_rx(r);
			hv_read_done(s, n);
			if (n == 0 && got == 0 && s->type == SOCK_STREAM) /* not before what there is to read */
				n = -hv_error_take(s);
			return hv_in_all(s, got, n);
		}
		if (look) {
			look = false;
			hv_testcancel();
			want = judge(s, r);
			if (__builtin_expect(want < 0, 0)) {
				if ((r->flags & MSG_ERRQUEUE) != 0 && s->type != SOCK_STREAM) /* of a UDP socket the kernel has everything but data */
					return kernel_rx(r);
				hv_to_kernel(s, HV_WHY_FLAG);
				look = true;
				continue;
			}
			if (want == 0 && (r->kind == RX_READ || r->kind == RX_READV))
				return 0;
			if (__builtin_expect(all, 0) && r->kind == RX_RECVMSG && r->iovcnt > 1)
				return rx_pieces(f, r);
		}
		if (__builtin_expect(want == 0, 0) && s->type == SOCK_STREAM) { /* nothing is wanted, yet it waits for something */
			hv_engine_enter();
			n = hv_vf_queue(s, FIONREAD);
			hv_engine_leave();
			if (n > 0)
				return 0;
			if (n == 0)
				n = -EAGAIN;
		} else {
			n = vf_rx(s, r);
		}
		if (n == HV_MOVED)
			continue;
		if (n >= 0) {
			if (__builtin_expect(!all, 1) || n == 0 || got + n >= want)
				return got + n;
			got += n;
			if (r->kind == RX_RECVMSG) /* a single piece */
				*r = (struct rx){ .fd = r->fd, .kind = RX_RECV, .flags = r->flags, .buf = r->iov[0].iov_base, .len = r->iov[0].iov_len };
			if ((r->flags & MSG_TRUNC) == 0)
				r->buf = (char *)r->buf + n;
			r->len -= (size_t)n;
			continue;
		}
		if (n != -EAGAIN || (r->flags & MSG_DONTWAIT) != 0 || atomic_load_explicit(&s->nonblock, memory_order_relaxed))
			return got != 0 ? got : n;
		n = hv_block(s, EPOLLIN | EPOLLRDHUP, &deadline, &s->rcvtimeo_ns);
		if (n < 0 || (n == HV_AGAIN && got != 0))
			return got != 0 ? got : n;
	}
}

static ssize_t rx(struct hv_file *f, struct rx *r)
{
	ssize_t n = rx_run(f, r);

	hv_file_put(f);
	return hv_ret(n);
}

HV_EXPORT ssize_t read(int fd, void *buf, size_t n)
{
	struct hv_file *f = hv_sock_at(fd);

	if (f == NULL)
		return REAL(read)(fd, buf, n);
	return rx(f, &(struct rx){ .fd = fd, .kind = RX_READ, .buf = buf, .len = n });
}

HV_EXPORT ssize_t recv(int fd, void *buf, size_t n, int flags)
{
	struct hv_file *f = hv_sock_at(fd);

	if (f == NULL)
		return REAL(recv)(fd, buf, n, flags);
	return rx(f, &(struct rx){ .fd = fd, .kind = RX_RECV, .flags = flags, .buf = buf, .len = n });
}

HV_EXPORT ssize_t recvfrom(int fd, void *restrict buf, size_t n, int flags, struct sockaddr *restrict sa, socklen_t *restrict salen)
{
	struct hv_file *f = hv_sock_at(fd);

	if (f == NULL)
		return REAL(recvfrom)(fd, buf, n, flags, sa, salen);
	return rx(f, &(struct rx){ .fd = fd, .kind = RX_RECVFROM, .flags = flags, .buf = buf, .len = n, .sa = sa, .salen = salen });
}

HV_EXPORT ssize_t readv(int fd, const struct iovec *iov, int n)
{
	struct hv_file *f = hv_sock_at(fd);

	if (f == NULL)
		return REAL(readv)(fd, iov, n);
	if (n < 0 || n > IOV_MAX) {
		hv_file_put(f);
		return hv_ret(-EINVAL);
	}
	return rx(f, &(struct rx){ .fd = fd, .kind = RX_READV, .iov = iov, .iovcnt = (size_t)n });
}

HV_EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	struct hv_file *f = off == -1 && (flags & ~RWF_NOWAIT) == 0 && n >= 0 && n <= IOV_MAX ? hv_sock_at(fd) : NULL;

	if (f == NULL) /* an offset on a socket is ESPIPE, on either tier */
		return REAL(preadv2)(fd, iov, n, off, flags);
	if (flags == 0)
		return rx(f, &(struct rx){ .fd = fd, .kind = RX_READV, .iov = iov, .iovcnt = (size_t)n });
	struct msghdr m;
	memset(&m, 0, sizeof m);
	m.msg_iov = (struct iovec *)(uintptr_t)iov;
	m.msg_iovlen = (size_t)n;
	return rx(f, &(struct rx){ .fd = fd, .kind = RX_RECVMSG, .flags = MSG_DONTWAIT, .msg = &m });
}

HV_EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct hv_file *f = hv_sock_at(fd);

	if (f == NULL) {
		ssize_t n = REAL(recvmsg)(fd, msg, flags);
		if (n >= 0 && msg->msg_controllen != 0 && !hv_aside())
			hv_pass_received(msg);
		return n;
	}
	return rx(f, &(struct rx){ .fd = fd, .kind = RX_RECVMSG, .flags = flags, .msg = msg });
}

/* On the VF: one after the other. An error after the first message is left for the next call to find. */
static int vf_recvmmsg(struct hv_file *f, int fd, struct mmsghdr *v, unsigned n, int flags, struct timespec *timeout)
{
	int64_t end = timeout == NULL ? INT64_MAX : (int64_t)hv_now_ns() + timeout->tv_sec * 1000000000 + timeout->tv_nsec;
	unsigned i = 0;
	ssize_t r = 0;

	if (n > IOV_MAX)
		n = IOV_MAX;
	while (i < n) {
		struct msghdr *m = &v[i].msg_hdr;
		r = rx_run(f, &(struct rx){ .fd = fd, .kind = RX_RECVMSG, .flags = flags & ~MSG_WAITFORONE, .msg = m });
		if (r < 0) {
			if (i != 0)
				hv_error_hold(f->s, (int)-r);
			break;
		}
		v[i++].msg_len = (unsigned)r;
		if ((flags & MSG_WAITFORONE) != 0)
			flags |= MSG_DONTWAIT;
		if (timeout != NULL) { /* looked at between messages only, like the kernel's */
			int64_t left = end - (int64_t)hv_now_ns();
			*timeout = (struct timespec){ left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0 };
			if (left <= 0)
				break;
		}
	}
	return i != 0 ? (int)i : (int)r;
}

HV_EXPORT int recvmmsg(int fd, struct mmsghdr *v, unsigned n, int flags, struct timespec *timeout)
{
	struct hv_file *f = hv_sock_at(fd);
	int r;

	if (f == NULL) {
		r = REAL(recvmmsg)(fd, v, n, flags, timeout);
		for (int i = 0; i < r && !hv_aside(); i++)
			if (v[i].msg_hdr.msg_controllen != 0)
				hv_pass_received(&v[i].msg_hdr);
		return r;
	}
	for (;;) {
		if (hv_sock_vf(f->s)) {
			if (hv_bad(v, (n < IOV_MAX ? n : IOV_MAX) * sizeof *v, HV_TRY_ALL) || (timeout != NULL && (hv_bad(timeout, sizeof *timeout, HV_TRY_ALL) || timeout->tv_sec < 0 || (unsigned long)timeout->tv_nsec >= 1000000000u))) {
				hv_to_kernel(f->s, HV_WHY_FLAG);
				continue;
			}
			r = vf_recvmmsg(f, fd, v, n, flags, timeout);
			break;
		}
		hv_touch(f->s, fd, HV_DIR_RECV);
		r = f->s->type != SOCK_STREAM ? -hv_error_take(f->s) : 0;
		if (r < 0)
			break;
		if (!hv_kernel_enter(f->s))
			continue;
		r = REAL(recvmmsg)(fd, v, n, flags, timeout);
		if (r < 0)
			r = -errno;
		hv_read_done(f->s, r);
		break;
	}
	hv_file_put(f);
	return (int)hv_ret(r);
}

/* _FORTIFY_SOURCE: libc's own says what happens to a call that would overflow the buffer. */
HV_EXPORT ssize_t __read_chk(int fd, void *buf, size_t n, size_t room)
{
	return n > room ? REAL_LAZY(__read_chk)(fd, buf, n, room) : read(fd, buf, n);
}

HV_EXPORT ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags)
{
	return n > room ? REAL_LAZY(__recv_chk)(fd, buf, n, room, flags) : recv(fd, buf, n, flags);
}

HV_EXPORT ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags, struct sockaddr *sa, socklen_t *salen)
{
	return n > room ? REAL_LAZY(__recvfrom_chk)(fd, buf, n, room, flags, sa, salen) : recvfrom(fd, buf, n, flags, sa, salen);
}

ssize_t __read(int fd, void *buf, size_t n) HV_ALSO(read);
ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off64_t off, int flags) HV_ALSO(preadv2);
