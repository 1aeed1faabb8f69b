/*
 * send.c - write, send, their relatives, sendfile and splice.
 *
 * As recv.c; in addition a blocking call on a stream goes on until everything is taken, and a broken connection raises SIGPIPE in the calling thread.
 */
#include <string.h>

#include "preload/io.h"
#include "preload/pass.h"

enum tx_kind { TX_WRITE, TX_SEND, TX_SENDTO, TX_WRITEV, TX_SENDMSG }; /* judge() knows the order */

struct tx {
	int fd;
	enum tx_kind kind;
	int flags;
	const void *buf;
	size_t len;
	const struct sockaddr *sa;
	socklen_t salen;
	const struct iovec *iov; /* WRITEV; SENDMSG: of msg, once judged */
	size_t iovcnt;
	const struct msghdr *msg;
};

#define TX_STREAM_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE)

static __attribute__((noinline)) ssize_t kernel_tx(const struct tx *t)
{
	ssize_t n = -1;

	switch (t->kind) {
	case TX_WRITE:
		n = REAL(write)(t->fd, t->buf, t->len);
		break;
	case TX_WRITEV:
		n = REAL(writev)(t->fd, t->iov, (int)t->iovcnt);
		break;
	case TX_SEND:
		n = REAL(send)(t->fd, t->buf, t->len, t->flags);
		break;
	case TX_SENDTO:
		n = REAL(sendto)(t->fd, t->buf, t->len, t->flags, t->sa, t->salen);
		break;
	case TX_SENDMSG:
		n = REAL(sendmsg)(t->fd, t->msg, t->flags);
		break;
	}
	return n < 0 ? -errno : n;
}

/* What needs a msghdr. */
static __attribute__((noinline)) ssize_t vf_tx_msg(struct hv_sock *s, const struct tx *t, int flags)
{
	struct iovec v = { (void *)(uintptr_t)t->buf, t->len };
	struct msghdr m;

	if (t->kind == TX_SENDMSG)
		return hv_vf_sendmsg(s, t->msg, flags);
	memset(&m, 0, sizeof m);
	m.msg_iov = t->kind == TX_WRITEV ? (struct iovec *)(uintptr_t)t->iov : &v;
	m.msg_iovlen = t->kind == TX_WRITEV ? t->iovcnt : 1;
	m.msg_name = (void *)(uintptr_t)t->sa;
	m.msg_namelen = t->sa != NULL ? t->salen : 0;
	return hv_vf_sendmsg(s, &m, flags);
}

static inline ssize_t vf_tx(struct hv_sock *s, const struct tx *t)
{
	bool dgram = s->type != SOCK_STREAM;
	int flags = t->flags | (dgram ? MSG_DONTWAIT : 0); /* what takes the kernel's way must not sleep in the engine */
	ssize_t n;

	hv_engine_enter();
	if (t->kind == TX_SENDMSG || t->kind == TX_WRITEV || (dgram && t->sa != NULL))
		n = vf_tx_msg(s, t, flags);
	else
		n = hv_vf_send(s, t->buf, t->len, flags);
	hv_engine_leave();
	return n;
}

/* Must the kernel do it? -1: yes; else octets to send. */
static __attribute__((noinline)) ssize_t judge_all(const struct hv_sock *s, struct tx *t)
{
	bool stream = s->type == SOCK_STREAM;
	size_t total = t->len;

	if (stream && (t->flags & ~TX_STREAM_FLAGS) != 0)
		return -1;
	hv_fault_need();
	if (t->kind == TX_SENDMSG) {
		const struct msghdr *m = t->msg;
		if (hv_bad(m, sizeof *m, HV_TRY_ALL) || m->msg_iovlen > IOV_MAX || (stream && m->msg_controllen != 0))
			return -1;
		if (m->msg_name != NULL && hv_bad(m->msg_name, m->msg_namelen, HV_TRY_ALL))
			return -1;
		t->iov = m->msg_iov;
		t->iovcnt = m->msg_iovlen;
	}
	if (t->sa != NULL && (t->salen > sizeof(struct sockaddr_storage) || hv_bad(t->sa, t->salen, HV_TRY_ALL)))
		return -1;
	if (t->kind == TX_WRITEV || t->kind == TX_SENDMSG) {
		if (t->iovcnt > IOV_MAX || hv_bad_iov(t->iov, t->iovcnt, HV_TRY_SEND, &total))
			return -1;
	} else if (hv_bad(t->buf, t->len, HV_TRY_SEND)) {
		return -1;
	}
	return (ssize_t)total;
}

/* The same for what nearly all calls are, in little code: it shares the first-level cache with the kernel's path of the packet. A stream takes an
 * address and makes nothing of it. */
static inline ssize_t judge(const struct hv_sock *s, struct tx *t)
{
	const void *sa = t->sa != NULL ? (const void *)t->sa : t->buf;
	bool usual = t->kind <= TX_SENDTO && (t->flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL)) == 0 && hv_fault_ready &&
		     hv_one_page(sa, t->sa != NULL ? t->salen : 1) && (hv_one_page(t->buf, t->len) || !hv_bad(t->buf, t->len, HV_TRY_SEND)) &&
		     hv_fault_load(t->buf, sa);

	if (__builtin_expect(usual, 1))
		return (ssize_t)t->len;
	return judge_all(s, t);
}

static ssize_t tx_run(struct hv_file *f, struct tx *t);

/* The rest of a vector of which `done` octets have been taken. */
static __attribute__((noinline)) ssize_t tx_pieces(struct hv_file *f, const struct tx *t, size_t done)
{
	ssize_t sent = (ssize_t)done, n;

	for (size_t i = 0; i < t->iovcnt; i++) {
		size_t len = t->iov[i].iov_len;
		if (done >= len) {
			done -= len;
			continue;
		}
		int more = i + 1 < t->iovcnt ? MSG_MORE : 0;
		struct tx one = { .fd = t->fd, .kind = TX_SEND, .flags = t->flags | more, .buf = (const char *)t->iov[i].iov_base + done, .len = len - done };
		n = tx_run(f, &one);
		if (n > 0)
			sent += n;
		else if (n < 0)
			hv_error_hold(f->s, (int)-n);
		if (n != (ssize_t)(len - done))
			break;
		done = 0;
	}
	return sent;
}

static __attribute__((noinline, cold)) ssize_t broken(const struct tx *t)
{
	if ((t->flags & MSG_NOSIGNAL) == 0)
		HV_SYS(SYS_tgkill, hv_sys_getpid(), hv_sys_gettid(), SIGPIPE, 0, 0, 0);
	return -EPIPE;
}

static ssize_t tx_run(struct hv_file *f, struct tx *t)
{
	struct hv_sock *s = f->s;
	bool look = true, again = false;
	int64_t deadline = 0;
	ssize_t sent = 0, total = 0;

	for (;; again = true) {
		ssize_t n;
		if (__builtin_expect(!hv_sock_vf(s), 0)) {
			if (again && !hv_tab_is(t->fd, f))
				return sent != 0 ? sent : -EBADF;
			hv_touch(s, t->fd, HV_DIR_SEND);
			int e = sent == 0 ? hv_error_take(s) : 0;
			if (__builtin_expect(e, 0) != 0)
				return -e;
			if (!hv_kernel_enter(s))
				continue;
			n = kernel_tx(t);
			if (s->type != SOCK_STREAM)
				hv_udp_cork(s, t->flags, n);
			hv_kernel_leave(s, n);
			return hv_in_all(s, sent, n);
		}
		if (look) {
			look = false;
			hv_testcancel();
			total = judge(s, t);
			if (__builtin_expect(total < 0, 0)) {
				hv_to_kernel(s, HV_WHY_FLAG);
				look = true;
				continue;
			}
			if (__builtin_expect(total == 0, 0) && t->kind == TX_WRITEV) /* not even an empty datagram, unlike write() and send() */
				return 0;
		}
		n = vf_tx(s, t);
		if (__builtin_expect(n == HV_MOVED, 0))
			continue;
		bool nonblock = (t->flags & MSG_DONTWAIT) != 0 || atomic_load_explicit(&s->nonblock, memory_order_relaxed);
		if (n >= 0) {
			if (s->type != SOCK_STREAM)
				return n;
			sent += n;
			if (sent >= total || nonblock)
				return sent;
			if (t->kind == TX_WRITEV || t->kind == TX_SENDMSG)
				return tx_pieces(f, t, (size_t)n);
			if (t->kind == TX_WRITE) /* the rest by a call that has flags */
				t->kind = TX_SEND;
			t->buf = (const char *)t->buf + n;
			t->len -= (size_t)n;
			continue;
		}
		if (n == -EPIPE && sent == 0 && s->type == SOCK_STREAM)
			return broken(t);
		if (n != -EAGAIN || nonblock)
			return sent != 0 ? sent : n;
		n = hv_block(s, EPOLLOUT, &deadline, &s->sndtimeo_ns);
		if (n < 0 || (n == HV_AGAIN && sent != 0))
			return sent != 0 ? sent : n;
	}
}

static ssize_t tx(struct hv_file *f, struct tx *t)
{
	ssize_t n = tx_run(f, t);

	hv_file_put(f);
	return hv_ret(n);
}

HV_EXPORT ssize_t write(int fd, const void *buf, size_t n)
{
	struct hv_file *f = hv_sock_at(fd);

	if (f == NULL)
		return REAL(write)(fd, buf, n);
	return tx(f, &(struct tx){ .fd = fd, .kind = TX_WRITE, .buf = buf, .len = n });
}

HV_EXPORT ssize_t send(int fd, const void *buf, size_t n, int flags)
{
	struct hv_file *f = hv_sock_at(fd);

	if (f == NULL)
		return REAL(send)(fd, buf, n, flags);
	return tx(f, &(struct tx){ .fd = fd, .kind = TX_SEND, .flags = flags, .buf = buf, .len = n });
}

HV_EXPORT ssize_t sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *sa, socklen_t salen)
{
	struct hv_file *f = hv_sock_at(fd);

	if (f == NULL)
		return REAL(sendto)(fd, buf, n, flags, sa, salen);
	return tx(f, &(struct tx){ .fd = fd, .kind = TX_SENDTO, .flags = flags, .buf = buf, .len = n, .sa = sa, .salen = salen });
}

HV_EXPORT ssize_t writev(int fd, const struct iovec *iov, int n)
{
	struct hv_file *f = hv_sock_at(fd);

	if (f == NULL)
		return REAL(writev)(fd, iov, n);
	if (n < 0 || n > IOV_MAX) {
		hv_file_put(f);
		return hv_ret(-EINVAL);
	}
	return tx(f, &(struct tx){ .fd = fd, .kind = TX_WRITEV, .iov = iov, .iovcnt = (size_t)n });
}

HV_EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	struct hv_file *f = off == -1 && (flags & ~RWF_NOWAIT) == 0 && n >= 0 && n <= IOV_MAX ? hv_sock_at(fd) : NULL;

	if (f == NULL)
		return REAL(pwritev2)(fd, iov, n, off, flags);
	if (flags == 0)
		return tx(f, &(struct tx){ .fd = fd, .kind = TX_WRITEV, .iov = iov, .iovcnt = (size_t)n });
	struct msghdr m;
	memset(&m, 0, sizeof m);
	m.msg_iov = (struct iovec *)(uintptr_t)iov;
	m.msg_iovlen = (size_t)n;
	return tx(f, &(struct tx){ .fd = fd, .kind = TX_SENDMSG, .flags = MSG_DONTWAIT, .msg = &m });
}

HV_EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct hv_file *f = hv_sock_at(fd);

	if (f == NULL) {
		if (!hv_aside())
			hv_pass_sending(msg);
		return REAL(sendmsg)(fd, msg, flags);
	}
	return tx(f, &(struct tx){ .fd = fd, .kind = TX_SENDMSG, .flags = flags, .msg = msg });
}

static int vf_sendmmsg(struct hv_file *f, int fd, struct mmsghdr *v, unsigned n, int flags)
{
	ssize_t r = 0;
	unsigned i = 0;

	if (n > IOV_MAX)
		n = IOV_MAX;
	while (i < n) {
		struct msghdr *m = &v[i].msg_hdr;
		r = tx_run(f, &(struct tx){ .fd = fd, .kind = TX_SENDMSG, .flags = flags, .msg = m });
		if (r < 0)
			break;
		v[i++].msg_len = (unsigned)r;
	}
	return i != 0 ? (int)i : (int)r;
}

HV_EXPORT int sendmmsg(int fd, struct mmsghdr *v, unsigned n, int flags)
{
	struct hv_file *f = hv_sock_at(fd);
	int r;

	if (f == NULL) {
		for (unsigned i = 0; i < n && i < IOV_MAX && !hv_aside(); i++)
			hv_pass_sending(&v[i].msg_hdr);
		return REAL(sendmmsg)(fd, v, n, flags);
	}
	for (;;) {
		if (hv_sock_vf(f->s)) {
			if (hv_bad(v, (n < IOV_MAX ? n : IOV_MAX) * sizeof *v, HV_TRY_ALL)) {
				hv_to_kernel(f->s, HV_WHY_FLAG);
				continue;
			}
			r = vf_sendmmsg(f, fd, v, n, flags);
			break;
		}
		hv_touch(f->s, fd, HV_DIR_SEND);
		if (!hv_kernel_enter(f->s))
			continue;
		r = REAL(sendmmsg)(fd, v, n, flags);
		if (r < 0)
			r = -errno;
		if (f->s->type != SOCK_STREAM)
			hv_udp_cork(f->s, flags, r);
		hv_kernel_leave(f->s, 0);
		break;
	}
	hv_file_put(f);
	return (int)hv_ret(r);
}

/* ---- calls in which the kernel moves octets between two descriptors ---- */

static struct hv_file *hold(int fd)
{
	struct hv_file *f = hv_sock_at(fd);

	if (f != NULL)
		hv_kernel_hold(f->s, HV_WHY_CALL);
	return f;
}

static void release(struct hv_file *f)
{
	if (f == NULL)
		return;
	hv_kernel_leave(f->s, 0);
	hv_file_put(f);
}

HV_EXPORT ssize_t sendfile(int out, int in, off_t *off, size_t n)
{
	struct hv_file *f = hold(out), *g = hold(in);
	ssize_t r = REAL(sendfile)(out, in, off, n);
	int e = errno;

	release(g);
	release(f);
	errno = e;
	return r;
}

HV_EXPORT ssize_t splice(int in, off64_t *inoff, int out, off64_t *outoff, size_t n, unsigned flags)
{
	struct hv_file *f = hold(out), *g = hold(in);
	ssize_t r = REAL(splice)(in, inoff, out, outoff, n, flags);
	int e = errno;

	release(g);
	release(f);
	errno = e;
	return r;
}

ssize_t __write(int fd, const void *buf, size_t n) HV_ALSO(write);
ssize_t __send(int fd, const void *buf, size_t n, int flags) HV_ALSO(send);
ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off64_t off, int flags) HV_ALSO(pwritev2);
ssize_t sendfile64(int out, int in, off64_t *off, size_t n) HV_ALSO(sendfile);
