/*
 * udptx.c - UDP send side: header templates per destination, and everything unusual to the kernel path of the same socket.
 */
#include <netinet/in.h>

#include "engine/internal.h"

#define DST_NS 1000000000u

/* Copies of the last datagrams handed to the VF. If it dies before they complete, their fate is unknown: UDP may duplicate, but a datagram
 * that the program has sent should not vanish because the host took a device away. Kept for payloads of up to one Ethernet frame. */
#define COPIES 64u
#define COPY_MAX 1472u
static struct copy { uint32_t idx, len; struct hv_sock *s; struct hv_tuple to; uint8_t data[COPY_MAX]; } *copies;

static void keep_copy(struct hv_sock *s, const struct hv_tuple *to, const struct hv_tx *tx, uint32_t idx)
{
	struct copy *c;

	if (copies == NULL && (copies = hv_map(COPIES * sizeof *copies)) == NULL)
		return;
	c = &copies[idx % COPIES];
	c->idx = idx;
	c->s = NULL;
	if (tx->payload > COPY_MAX)
		return;
	c->s = s;
	c->to = *to;
	c->len = 0;
	for (unsigned i = 0; i < tx->nsge; i++) {
		memcpy(c->data + c->len, tx->sge[i].addr, tx->sge[i].len);
		c->len += tx->sge[i].len;
	}
}

/* The address the kernel would send from: ask it, with a socket of our own. */
static bool source_for(struct hv_tuple *t)
{
	union { struct sockaddr_in in; struct sockaddr_in6 in6; } a;
	socklen_t l = t->family == 6 ? sizeof a.in6 : sizeof a.in;
	int fd = hv_sys_socket(t->family == 6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool ok = false;

	if (fd < 0)
		return false;
	memset(&a, 0, sizeof a);
	if (t->family == 6) {
		a.in6.sin6_family = AF_INET6;
		a.in6.sin6_port = t->rport;
		memcpy(&a.in6.sin6_addr, t->raddr, 16);
	} else {
		a.in.sin_family = AF_INET;
		a.in.sin_port = t->rport;
		memcpy(&a.in.sin_addr, t->raddr, 4);
	}
	if (hv_sys_connect(fd, &a, l) == 0 && hv_sys_getsockname(fd, &a, &l) == 0) {
		if (t->family == 6)
			memcpy(t->laddr, &a.in6.sin6_addr, 16);
		else
			memcpy(t->laddr, &a.in.sin_addr, 4);
		ok = true;
	}
	hv_sys_close(fd);
	return ok;
}

static struct hv_udp_dst *lookup(struct hv_sock *s, const struct hv_tuple *to, uint64_t now)
{
	static const uint8_t any[16];
	struct hv_sock_priv *p = s->p;
	struct hv_udp_dst *d = NULL;

	for (unsigned i = 0; i < 4; i++) {
		struct hv_udp_dst *c = &p->dst[i];
		if (c->until_ns != 0 && c->tuple.rport == to->rport && memcmp(c->tuple.raddr, to->raddr, 16) == 0) {
			if (now < c->until_ns)
				return c;
			d = c;
			break;
		}
	}
	if (d == NULL)
		d = &p->dst[p->dst_turn++ & 3];
	memset(d, 0, sizeof *d);
	d->tuple = *to;
	d->until_ns = now + DST_NS;
	if ((to->family == 4 && (to->raddr[0] >= 224 || to->raddr[0] == 0)) || (to->family == 6 && to->raddr[0] == 0xff))
		return d;
	if (memcmp(d->tuple.laddr, any, 16) == 0 && !source_for(&d->tuple))
		return d;
	struct hv_route rt;
	memset(&rt, 0, sizeof rt);
	if (hv_route_get(&d->tuple, 0, p->bound_dev, &rt) < 0 || rt.local || rt.mtu_locked || !rt.have_mac ||
	    (rt.ifindex != G.pair.upper && rt.ifindex != G.pair.lower)) {
		if (!rt.have_mac && !rt.mtu_locked)
			d->until_ns = now + 1000000u; /* the kernel's send resolves it; look again soon */
		return d;
	}
	if (memcmp(rt.dst_mac, "\xff\xff\xff\xff\xff\xff", 6) == 0)
		return d;
	hv_path_l2(d->l2, &rt, to->family);
	d->l2_len = 14;
	d->mtu = rt.mtu != 0 ? rt.mtu : G.pair.mtu;
	d->over_vf = true;
	return d;
}

static bool parse_to(const struct hv_sock *s, const struct msghdr *msg, struct hv_tuple *t)
{
	*t = s->p->tuple;
	if (msg->msg_name == NULL)
		return t->rport != 0;
	const struct sockaddr *sa = msg->msg_name;
	if (s->family == AF_INET && msg->msg_namelen >= sizeof(struct sockaddr_in) && sa->sa_family == AF_INET) {
		const struct sockaddr_in *in = msg->msg_name;
		memset(t->raddr, 0, 16);
		memcpy(t->raddr, &in->sin_addr, 4);
		t->rport = in->sin_port;
		t->family = 4;
		return t->rport != 0;
	}
	if (s->family == AF_INET6 && msg->msg_namelen >= sizeof(struct sockaddr_in6) && sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = msg->msg_name;
		memset(t->raddr, 0, 16);
		t->rport = in6->sin6_port;
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
			memcpy(t->raddr, in6->sin6_addr.s6_addr + 12, 4);
			if (t->family != 4)
				return false;
		} else {
			memcpy(t->raddr, &in6->sin6_addr, 16);
			if (t->family != 6 || in6->sin6_scope_id != 0)
				return false;
		}
		return t->rport != 0;
	}
	return false;
}

ssize_t hv_udp_sendmsg(struct hv_sock *s, const struct msghdr *msg, int flags)
{
	struct hv_sock_priv *p = s->p;
	struct hv_tuple to;
	ssize_t r = HV_MOVED;
	size_t len = 0;

	hv_lock(&G.lock);
	if (!hv_sock_vf(s))
		goto out;
	bool kernel = atomic_load_explicit(&s->corked, memory_order_relaxed) || (flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL)) != 0 ||
	    msg->msg_controllen != 0 || msg->msg_iovlen > HV_TX_SEG_MAX || !parse_to(s, msg, &to);
	for (size_t i = 0; !kernel && i < msg->msg_iovlen; i++)
		len += msg->msg_iov[i].iov_len;
	if (!kernel) {
		uint64_t now = hv_now_ns();
		struct hv_udp_dst *d = lookup(s, &to, now);
		struct hv_tx tx;
		kernel = true;
		/* ICMP errors come by the kernel's path, and the next call of any kind reports them. */
		if (now - p->k_err_ns >= HV_KERNEL_LOOK_NS) {
			int e = hv_error_take(s);
			if (e == 0)
				e = hv_sys_getint(hv_sock_fd(s), SOL_SOCKET, SO_ERROR);
			p->k_err_ns = now;
			if (e > 0) {
				r = -e;
				goto out;
			}
		}
		if (hv_vf_tx_room(G.vf) == 0)
			hv_vf_poll_tx(G.vf, &G.env);
		if (d->over_vf && hv_vf_tx_room(G.vf) != 0 && len <= 65507 &&
		    hv_udp_build(&tx, &d->tuple, d->l2, d->l2_len, (uint32_t)len, d->mtu, p->udp.ttl, p->udp.tos, p->ip_id++)) {
			tx.nsge = 0;
			tx.payload = (uint32_t)len;
			tx.mss = 0;
			tx.inline_ok = true;
			for (size_t i = 0; i < msg->msg_iovlen; i++)
				if (msg->msg_iov[i].iov_len != 0)
					tx.sge[tx.nsge++] = (struct hv_sge){ msg->msg_iov[i].iov_base, (uint32_t)msg->msg_iov[i].iov_len, 0 };
			uint32_t idx = G.env.sq_next;
			if (hv_vf_tx(G.vf, &G.env, &tx, now) == 0) {
				keep_copy(s, &to, &tx, idx);
				p->active_us = now / 1000u;
				p->vf_tx_octets += len;
				p->vf_tx_calls++;
				HV_ADD_LOCKED(vf_tx_octets, len);
				HV_ADD_LOCKED(vf_tx_calls, 1);
				r = (ssize_t)len;
				kernel = false;
			}
		}
	}
	if (kernel) {
		/* > MTU, control data, multicast, another device, no neighbour yet: the same socket's kernel path. It may block, so not
		 * under the lock. */
		int fd = hv_sock_fd(s);
		hv_unlock(&G.lock);
		r = hv_sys_sendmsg(fd, msg, flags);
		hv_udp_cork(s, flags, r);
		return r;
	}
out:
	hv_unlock(&G.lock);
	return r;
}

/* Lock held, the VF is lost, its sockets aren't demoted yet. */
void hv_udp_resend_unfinished(void)
{
	uint32_t n = G.env.sq_next - G.env.sq_done;

	if (copies == NULL)
		return;
	for (uint32_t i = G.env.sq_next - (n < COPIES ? n : COPIES); i != G.env.sq_next; i++) {
		struct copy *c = &copies[i % COPIES];
		struct hv_sock *s = G.vf_socks;
		if (c->idx != i || c->s == NULL)
			continue;
		while (s != NULL && s != c->s)
			s = s->p->v_next;
		if (s == NULL)
			continue; /* closed since */
		struct sockaddr_storage ss;
		struct iovec iov = { c->data, c->len };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
		if (s->p->tuple.rport == 0) {
			m.msg_namelen = hv_udp_addr(s, &c->to, &ss);
			m.msg_name = &ss;
		}
		if (hv_sys_sendmsg(hv_sock_fd(s), &m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
			HV_COUNT(udp_resent);
		c->s = NULL;
	}
}
