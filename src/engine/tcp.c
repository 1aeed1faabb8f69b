/*
 * tcp.c - data calls of VF-tier TCP sockets, and the dispatch of the hv_vf_* calls by type. None blocks.
 */
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "engine/internal.h"

static void drop_aux(struct hv_sock_priv *p)
{
	if (HV_UNLIKELY(p->aux != NULL) && hv_tcp_aux_done(p->tcb)) {
		hv_unmap(p->aux, p->aux_len);
		p->aux = NULL;
	}
}

/* A peek always starts at the first octet: one copy, then scattered. */
static __attribute__((noinline, cold)) ssize_t peek_pieces(struct hv_sock_priv *p, const struct iovec *iov, size_t n, uint64_t now_us)
{
	uint32_t have = hv_tcp_readable(p->tcb);
	uint8_t *tmp = hv_scratch(have);
	unsigned acts = 0;
	size_t got = 0;

	if (tmp == NULL)
		return -ENOBUFS;
	have = hv_tcp_read(p->tcb, &G.env, tmp, have, true, &acts, now_us);
	for (size_t i = 0; i < n && got < have; i++) {
		size_t c = have - got < iov[i].iov_len ? have - got : iov[i].iov_len;
		memcpy(iov[i].iov_base, tmp + got, c);
		got += c;
	}
	return (ssize_t)got;
}

/* Lock held, tier VF. */
static ssize_t tcp_recv(struct hv_sock *s, const struct iovec *iov, size_t n, int flags)
{
	struct hv_sock_priv *p = s->p;
	/* What is readable came with the last poll: its time will do, or that of what was sent since. */
	uint64_t now = hv_tcp_readable(p->tcb) != 0 ? G.now_ns : hv_now_ns();
	unsigned acts = 0;
	size_t got = 0;
	bool peek = (flags & MSG_PEEK) != 0;

	if (hv_tcp_readable(p->tcb) == 0 && !p->demote_pending) {
		hv_ring_poll(now);
		if (!hv_sock_vf(s))
			return HV_MOVED;
		if (hv_tcp_readable(p->tcb) == 0) {
			size_t want = 0;
			for (size_t i = 0; i < n; i++)
				want += iov[i].iov_len;
			return want == 0 ? 0 : -EAGAIN;
		}
	}
	if (HV_UNLIKELY(peek) && n > 1)
		return peek_pieces(p, iov, n, now / 1000u);
	for (size_t i = 0; i < n; i++) {
		if (iov[i].iov_len == 0)
			continue;
		uint32_t want = iov[i].iov_len > (1u << 30) ? 1u << 30 : (uint32_t)iov[i].iov_len;
		uint32_t r = hv_tcp_read(p->tcb, &G.env, (flags & MSG_TRUNC) != 0 ? NULL : iov[i].iov_base, want, peek, &acts, now / 1000u);
		got += r;
		if (r < want)
			break;
	}
	if (!peek) {
		p->vf_rx_octets += got;
		p->vf_rx_calls++;
		HV_ADD_LOCKED(vf_rx_octets, got);
		HV_ADD_LOCKED(vf_rx_calls, 1);
		drop_aux(p);
		if (HV_UNLIKELY(p->items != NULL) && hv_tcp_readable(p->tcb) == 0)
			hv_epoll_consumed(s);
	}
	if (acts != 0)
		hv_sock_apply(s, acts, now / 1000u);
	if (G.env.free_rx != NULL && G.env.n_free_rx >= 32)
		hv_vf_refill(G.vf, &G.env);
	return (ssize_t)got;
}

/* By way of the send queue. */
static __attribute__((noinline)) ssize_t send_slow(struct hv_sock *s, const struct iovec *iov, size_t n, bool more, uint64_t now)
{
	struct hv_sock_priv *p = s->p;
	uint64_t now_us = now / 1000u;
	unsigned acts = 0;
	size_t sent = 0;

	for (size_t i = 0; i < n; i++) {
		const uint8_t *d = iov[i].iov_base;
		size_t left = iov[i].iov_len;
		while (left != 0) {
			uint32_t want = left > (1u << 20) ? 1u << 20 : (uint32_t)left;
			uint32_t r = hv_tcp_write(p->tcb, &G.env, d, want, more || left > want || i + 1 < n, &acts, now_us);
			sent += r;
			d += r;
			left -= r;
			if (r < want) {
				/* Let what is queued go, reap, and try once more before telling the caller to wait. */
				hv_sock_pump(s, now_us);
				hv_vf_poll_tx(G.vf, &G.env);
				hv_env_reap(&G.env);
				r = hv_tcp_write(p->tcb, &G.env, d, want - r, more || i + 1 < n, &acts, now_us);
				sent += r;
				d += r;
				left -= r;
				if (r == 0)
					goto full;
			}
		}
	}
full:
	hv_sock_pump(s, now_us);
	if (p->items != NULL && !hv_tcp_writable(p->tcb))
		hv_epoll_consumed(s);
	if (sent == 0) {
		size_t want = 0;
		for (size_t i = 0; i < n; i++)
			want += iov[i].iov_len;
		if (want != 0) {
			hv_ring_poll(now);
			/* No chunk left and nothing of ours under way that would free one: no acknowledgement would ever wake the
			 * writer. */
			if (hv_sock_vf(s) && hv_tcp_outq(p->tcb) == 0 && hv_tcp_write_room(p->tcb) != 0)
				hv_demote_locked(s, HV_WHY_NO_MEMORY, false);
			return hv_sock_vf(s) ? -EAGAIN : HV_MOVED;
		}
	}
	return (ssize_t)sent;
}

static ssize_t tcp_send(struct hv_sock *s, const struct iovec *iov, size_t n, int flags)
{
	struct hv_sock_priv *p = s->p;
	uint64_t now = hv_clock(hv_now_ns()), now_us = now / 1000u;
	bool more = (flags & MSG_MORE) != 0;
	size_t sent = 0;

	if (p->demote_pending)
		return -EAGAIN;
	p->active_us = now_us;
	if (n == 1 && !more && iov[0].iov_len != 0 && iov[0].iov_len <= 16384 && hv_vf_tx_room(G.vf) != 0) {
		struct hv_tx tx;
		uint32_t len = (uint32_t)iov[0].iov_len;
		if (hv_tcp_send_fast(p->tcb, &G.env, iov[0].iov_base, len, &tx, now_us) == len) {
			if (hv_vf_tx(G.vf, &G.env, &tx, now) == 0) {
				hv_tcp_send_commit(p->tcb, &G.env, iov[0].iov_base, len, now_us);
				hv_timer_moved(s);
				sent = len;
				goto out;
			}
		}
	}
	ssize_t r = send_slow(s, iov, n, more, now);
	if (r < 0)
		return r;
	sent = (size_t)r;
out:
	p->vf_tx_octets += sent;
	p->vf_tx_calls++;
	HV_ADD_LOCKED(vf_tx_octets, sent);
	HV_ADD_LOCKED(vf_tx_calls, 1);
	return (ssize_t)sent;
}

ssize_t hv_vf_recv(struct hv_sock *s, void *buf, size_t len, int flags)
{
	struct iovec iov = { buf, len };
	ssize_t r = HV_MOVED;

	if (s->type != SOCK_STREAM) {
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
		return hv_udp_recvmsg(s, &m, flags);
	}
	hv_lock(&G.lock);
	if (hv_sock_vf(s))
		r = tcp_recv(s, &iov, 1, flags);
	hv_unlock(&G.lock);
	return r;
}

ssize_t hv_vf_send(struct hv_sock *s, const void *buf, size_t len, int flags)
{
	struct iovec iov = { (void *)(uintptr_t)buf, len };
	ssize_t r = HV_MOVED;

	if (s->type != SOCK_STREAM) {
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
		return hv_udp_sendmsg(s, &m, flags);
	}
	hv_lock(&G.lock);
	if (hv_sock_vf(s))
		r = tcp_send(s, &iov, 1, flags);
	hv_unlock(&G.lock);
	return r;
}

ssize_t hv_vf_recvmsg(struct hv_sock *s, struct msghdr *msg, int flags)
{
	ssize_t r = HV_MOVED;

	if (s->type != SOCK_STREAM)
		return hv_udp_recvmsg(s, msg, flags);
	if (msg->msg_iovlen > 1024)
		return -EMSGSIZE;
	hv_lock(&G.lock);
	if (hv_sock_vf(s))
		r = tcp_recv(s, msg->msg_iov, msg->msg_iovlen, flags);
	hv_unlock(&G.lock);
	if (r >= 0) {
		/* As tcp_recvmsg(): a stream socket returns no address, no control data. */
		if (msg->msg_name != NULL)
			msg->msg_namelen = 0;
		msg->msg_controllen = 0;
		msg->msg_flags = flags & MSG_CMSG_CLOEXEC;
	}
	return r;
}

ssize_t hv_vf_sendmsg(struct hv_sock *s, const struct msghdr *msg, int flags)
{
	ssize_t r = HV_MOVED;

	if (s->type != SOCK_STREAM)
		return hv_udp_sendmsg(s, msg, flags);
	if (msg->msg_iovlen > 1024)
		return -EMSGSIZE;
	hv_lock(&G.lock);
	if (hv_sock_vf(s))
		r = tcp_send(s, msg->msg_iov, msg->msg_iovlen, flags);
	hv_unlock(&G.lock);
	return r;
}

int hv_vf_queue(struct hv_sock *s, unsigned long req)
{
	int r = HV_MOVED;

	if (s->type != SOCK_STREAM)
		return req == SIOCINQ ? hv_udp_inq(s) : 0;
	hv_lock(&G.lock);
	if (hv_sock_vf(s)) {
		hv_ring_poll(hv_now_ns());
		if (hv_sock_vf(s))
			r = (int)(req == SIOCINQ ? hv_tcp_readable(s->p->tcb) : req == SIOCOUTQ ? hv_tcp_outq(s->p->tcb) : hv_tcp_outq_nsd(s->p->tcb));
	}
	hv_unlock(&G.lock);
	return r;
}

bool hv_sock_events(struct hv_sock *s, uint32_t *events)
{
	struct hv_sock_priv *p = s->p;

	*events = 0;
	if (!hv_sock_vf(s))
		return false;
	if (s->type != SOCK_STREAM) {
		*events = (hv_udp_readable(s) ? EPOLLIN | EPOLLRDNORM : 0u) | EPOLLOUT | EPOLLWRNORM;
		return true;
	}
	if (hv_tcp_readable(p->tcb) != 0)
		*events |= EPOLLIN | EPOLLRDNORM;
	if (hv_tcp_writable(p->tcb))
		*events |= EPOLLOUT | EPOLLWRNORM;
	return true;
}

void hv_progress(void)
{
	if (hv_ring_ready() && hv_trylock(&G.lock)) {
		hv_ring_poll(hv_now_ns());
		hv_unlock(&G.lock);
	}
}
