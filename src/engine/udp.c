/*
 * udp.c - UDP sockets: what may be promoted, and the receive side, which serves two queues: the kernel's (synthetic path, fragments,
 * whatever came before the rule) and the VF's.
 *
 * The kernel socket stays bound and live all the time; promotion is a flow rule.
 */
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stddef.h>

#include "engine/internal.h"

#define ALONE_US 100000u

static int port_users_of(int af, uint16_t port)
{
	struct { struct nlmsghdr h; struct inet_diag_req_v2 r; } q;
	uint8_t buf[8192] __attribute__((aligned(8)));
	int n = 0, fd = hv_sys_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (fd < 0)
		return -1;
	memset(&q, 0, sizeof q);
	q.h.nlmsg_len = sizeof q;
	q.h.nlmsg_type = SOCK_DIAG_BY_FAMILY;
	q.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	q.r.sdiag_family = (uint8_t)af;
	q.r.sdiag_protocol = IPPROTO_UDP;
	q.r.idiag_states = ~0u;
	if (hv_sys_send(fd, &q, sizeof q, 0) < 0) {
		hv_sys_close(fd);
		return -1;
	}
	for (bool done = false; !done;) {
		ssize_t r = hv_sys_recv(fd, buf, sizeof buf, 0);
		if (r <= 0) {
			n = -1;
			break;
		}
		size_t left = (size_t)r;
		for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type == NLMSG_DONE) {
				done = true;
				break;
			}
			if (h->nlmsg_type == NLMSG_ERROR) {
				n = -1;
				done = true;
				break;
			}
			const struct inet_diag_msg *m = NLMSG_DATA(h);
			if (m->id.idiag_sport == port)
				n++;
		}
	}
	hv_sys_close(fd);
	return n;
}

/* How many UDP sockets in this netns have that local port: more than one and a rule would take a sibling's datagrams. -1: can't tell. An
 * IPv6 socket may be one for IPv4, too. */
static int port_users(uint16_t port)
{
	int n = port_users_of(AF_INET, port), m = port_users_of(AF_INET6, port);

	return n < 0 || m < 0 ? -1 : n + m;
}

/* Others may bind the same port later, if both sides have asked for it. */
static bool may_share(const struct hv_sock *s, int fd)
{
	return hv_sys_getint(fd, SOL_SOCKET, SO_REUSEPORT) == 1 || (s->p->tuple.rport == 0 && hv_sys_getint(fd, SOL_SOCKET, SO_REUSEADDR) == 1);
}

/* A socket of this process has got this name: siblings on the VF go to the kernel, which knows who of them gets what. What they haven't
 * read yet is given to it as well. Sockets of other processes are looked for by hv_udp_alone(). */
void hv_udp_named(const struct hv_sock *s, int fd)
{
	struct sockaddr_storage ss;
	socklen_t l = sizeof ss;

	if (s->type != SOCK_DGRAM || !hv_ring_ready() || hv_sys_getsockname(fd, &ss, &l) < 0)
		return;
	uint16_t port = ((const struct sockaddr_in *)(const void *)&ss)->sin_port; /* at the same place in both families */
	hv_lock(&G.lock);
	for (struct hv_sock *v = G.vf_socks, *next; v != NULL; v = next) {
		next = v->p->v_next;
		if (v != s && v->type == SOCK_DGRAM && v->p->tuple.lport == port)
			hv_demote_locked(v, HV_WHY_SIBLING, false);
	}
	hv_unlock(&G.lock);
}

bool hv_udp_alone(struct hv_sock *s, uint64_t now_us)
{
	s->p->alone_us = now_us + ALONE_US;
	return port_users(s->p->tuple.lport) == 1;
}

static bool fill(struct hv_tuple *t, bool local, const struct sockaddr_storage *ss, bool *v6only_form)
{
	uint8_t *a = local ? t->laddr : t->raddr;
	uint16_t *port = local ? &t->lport : &t->rport;

	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)ss;
		memcpy(a, &in->sin_addr, 4);
		*port = in->sin_port;
		t->family = 4;
		return true;
	}
	if (ss->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)ss;
		*port = in6->sin6_port;
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
			memcpy(a, in6->sin6_addr.s6_addr + 12, 4);
			t->family = 4;
			return true;
		}
		memcpy(a, &in6->sin6_addr, 16);
		t->family = 6;
		*v6only_form = true;
		if (in6->sin6_scope_id != 0)
			t->scope = in6->sin6_scope_id;
		return true;
	}
	return false;
}

bool hv_udp_eligible(struct hv_sock *s, int fd, struct hv_tuple *t, int *upper, enum hv_why *why)
{
	struct sockaddr_storage l, r;
	socklen_t ll = sizeof l, rl = sizeof r;
	bool v6 = false;

	memset(t, 0, sizeof *t);
	t->proto = 17;
	*why = HV_WHY_INELIGIBLE;
	if (hv_sys_getsockname(fd, &l, &ll) < 0)
		return false;
	if (hv_sys_getpeername(fd, &r, &rl) == 0) {
		if (!fill(t, false, &r, &v6) || !fill(t, true, &l, &v6))
			return false;
		if (t->rport == 0 || t->lport == 0)
			return false;
	} else {
		if (!fill(t, true, &l, &v6) || t->lport == 0)
			return false;
		/* A dual-stack any-bound socket gets both families; one rule is one family. */
		if (s->family == AF_INET6 && t->family == 6) {
			static const uint8_t any[16];
			if (memcmp(t->laddr, any, 16) == 0 && hv_sys_getint(fd, IPPROTO_IPV6, IPV6_V6ONLY) != 1)
				return false;
		}
	}
	if (t->scope != 0)
		return false;
	if (t->family == 4 && (t->raddr[0] >= 224 || t->laddr[0] >= 224))
		return false;
	if (t->family == 6 && (t->raddr[0] == 0xff || t->laddr[0] == 0xff))
		return false;
	*why = HV_WHY_OPTION;
	if (!hv_udp_options_fit(s, fd))
		return false;
	int flt = 0;
	socklen_t fl = 0;
	flt = hv_sys_getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &fl);
	if (flt == -EACCES || (flt == 0 && fl > 0))
		return false;
	*why = HV_WHY_SIBLING;
	s->p->alone_us = 0;
	if (may_share(s, fd) && !hv_udp_alone(s, hv_now_us()))
		return false;
	int dev = hv_sys_getint(fd, SOL_SOCKET, SO_BINDTOIFINDEX);
	s->p->bound_dev = dev > 0 ? dev : 0;
	if (t->rport == 0) {
		/* No peer, no route: the ring that is open, or the first pair there is, decided by the service thread. */
		hv_lock(&G.lock);
		*upper = hv_ring_ready() ? G.pair.upper : 0;
		hv_unlock(&G.lock);
		if (s->p->bound_dev != 0)
			*upper = s->p->bound_dev;
	}
	int ttl = hv_sys_getint(fd, t->family == 6 ? IPPROTO_IPV6 : IPPROTO_IP, t->family == 6 ? IPV6_UNICAST_HOPS : IP_TTL);
	int tos = hv_sys_getint(fd, t->family == 6 ? IPPROTO_IPV6 : IPPROTO_IP, t->family == 6 ? IPV6_TCLASS : IP_TOS);
	s->p->udp.ttl = (uint8_t)(ttl > 0 ? ttl : 64);
	s->p->udp.tos = (uint8_t)(tos > 0 ? tos : 0);
	*why = HV_WHY_NONE;
	return true;
}

bool hv_udp_readable(const struct hv_sock *s)
{
	return s->p->udp.count != 0 || atomic_load_explicit(&s->p->k_ready, memory_order_relaxed);
}

void hv_udp_store_add(struct hv_sock *s)
{
	struct hv_udp *u = &s->p->udp;
	uint32_t n = hv_udp_store_size(u->rcvbuf);

	u->store = hv_map(n); /* NULL: the queue is full for now, as the kernel's would be */
	u->store_cap = u->store != NULL ? n : 0;
	u->store_head = u->store_tail = 0;
}

void hv_udp_store_drop(struct hv_sock *s)
{
	struct hv_udp *u = &s->p->udp;

	hv_unmap(u->store, u->store_cap);
	u->store = NULL;
	u->store_cap = 0;
}

int hv_udp_inq(struct hv_sock *s)
{
	struct hv_sock_priv *p = s->p;
	struct hv_dgram d;
	int r = 0;

	hv_lock(&G.lock);
	if (!hv_sock_vf(s)) {
		r = HV_MOVED;
	} else {
		hv_ring_poll(hv_now_ns());
		if (!p->vf_peeked)
			hv_sys_ioctl(hv_sock_fd(s), 0x541B /* FIONREAD */, &r);
		if (r != 0) {
			hv_kernel_has(p, true); /* the one whose length is known is the next to be read */
		} else if (hv_udp_peek(&p->udp, &d)) {
			r = (int)d.len;
			p->vf_peeked = true;
		}
	}
	hv_unlock(&G.lock);
	return r;
}

socklen_t hv_udp_addr(const struct hv_sock *s, const struct hv_tuple *t, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof *ss);
	if (s->family == AF_INET) {
		struct sockaddr_in *in = (void *)ss;
		in->sin_family = AF_INET;
		in->sin_port = t->rport;
		memcpy(&in->sin_addr, t->raddr, 4);
		return sizeof *in;
	}
	struct sockaddr_in6 *in6 = (void *)ss;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = t->rport;
	if (t->family == 4) {
		in6->sin6_addr.s6_addr[10] = 0xff;
		in6->sin6_addr.s6_addr[11] = 0xff;
		memcpy(in6->sin6_addr.s6_addr + 12, t->raddr, 4);
	} else {
		memcpy(&in6->sin6_addr, t->raddr, 16);
	}
	return sizeof *in6;
}

/* Is there more in the kernel's queue? What poll() has said of it doesn't outlast the datagram that it was about. */
static bool kernel_has_more(const struct hv_sock *s)
{
	struct pollfd q = { hv_sock_fd(s), POLLIN, 0 };
	struct timespec zero = { 0, 0 };

	return hv_sys_ppoll(&q, 1, &zero, NULL) > 0;
}

static ssize_t from_kernel(struct hv_sock *s, struct msghdr *msg, int flags, uint64_t now)
{
	struct hv_sock_priv *p = s->p;
	ssize_t r = hv_sys_recvmsg(hv_sock_fd(s), msg, (flags & ~MSG_WAITALL) | MSG_DONTWAIT);

	hv_kernel_looked(p, now, r != -EAGAIN);
	if (r == -EAGAIN) {
		p->k_drain = false;
		hv_kernel_has(p, false);
	} else if (r >= 0 && (flags & MSG_PEEK) != 0) {
		hv_kernel_has(p, true);
	} else {
		hv_kernel_has(p, kernel_has_more(s));
		if (r >= 0) {
			HV_COUNT(udp_kernel_path);
			atomic_store_explicit(&p->k_gap_ns, HV_KERNEL_LOOK_NS, memory_order_relaxed);
		}
	}
	return r;
}

/* As put_cmsg() of the kernel. */
struct cmsgs {
	uint8_t *at;
	size_t left;
	int flags;
};

static void cmsg_put(struct cmsgs *c, int level, int type, const void *data, size_t len)
{
	struct cmsghdr h = { .cmsg_level = level, .cmsg_type = type, .cmsg_len = CMSG_LEN(len) };
	size_t space = CMSG_SPACE(len);

	if (c->at == NULL || c->left < sizeof h) {
		c->flags |= MSG_CTRUNC;
		return;
	}
	if (c->left < h.cmsg_len) {
		c->flags |= MSG_CTRUNC;
		h.cmsg_len = c->left;
	}
	memcpy(c->at, &h, sizeof h);
	memcpy(c->at + sizeof h, data, h.cmsg_len - sizeof h);
	if (space > c->left)
		space = c->left;
	c->at += space;
	c->left -= space;
}

/* In the kernel's order: ip6_datagram_recv_common_ctl(), then ip_cmsg_recv() or ip6_datagram_recv_specific_ctl(). */
static void cmsgs_make(const struct hv_sock *s, const struct hv_dgram *d, struct msghdr *msg)
{
	struct cmsgs c = { msg->msg_control, msg->msg_control != NULL ? msg->msg_controllen : 0, 0 };
	size_t room = c.left;
	const struct hv_tuple *t = &d->tuple;
	uint8_t w = s->p->cmsgs;
	int v;

	if ((w & HV_CM_PKTINFO6) != 0) {
		struct in6_pktinfo pi = { .ipi6_ifindex = (unsigned)G.pair.upper };
		if (t->family == 6) {
			memcpy(&pi.ipi6_addr, t->laddr, 16);
		} else {
			pi.ipi6_addr.s6_addr[10] = pi.ipi6_addr.s6_addr[11] = 0xff;
			memcpy(pi.ipi6_addr.s6_addr + 12, t->laddr, 4);
		}
		cmsg_put(&c, IPPROTO_IPV6, IPV6_PKTINFO, &pi, sizeof pi);
	}
	if (t->family == 6) {
		v = d->ttl;
		if ((w & HV_CM_HOPLIMIT) != 0)
			cmsg_put(&c, IPPROTO_IPV6, IPV6_HOPLIMIT, &v, sizeof v);
		v = d->tos;
		if ((w & HV_CM_TCLASS) != 0)
			cmsg_put(&c, IPPROTO_IPV6, IPV6_TCLASS, &v, sizeof v);
	} else {
		if ((w & HV_CM_PKTINFO) != 0) {
			struct in_pktinfo pi = { .ipi_ifindex = G.pair.upper };
			memcpy(&pi.ipi_addr, t->laddr, 4);
			pi.ipi_spec_dst = pi.ipi_addr; /* unicast to an address of ours */
			cmsg_put(&c, IPPROTO_IP, IP_PKTINFO, &pi, sizeof pi);
		}
		v = d->ttl;
		if ((w & HV_CM_TTL) != 0)
			cmsg_put(&c, IPPROTO_IP, IP_TTL, &v, sizeof v);
		if ((w & HV_CM_TOS) != 0)
			cmsg_put(&c, IPPROTO_IP, IP_TOS, &d->tos, 1);
		if ((w & HV_CM_ORIGDST) != 0) {
			struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = t->lport };
			memcpy(&sin.sin_addr, t->laddr, 4);
			cmsg_put(&c, IPPROTO_IP, IP_ORIGDSTADDR, &sin, sizeof sin);
		}
	}
	msg->msg_flags |= c.flags;
	msg->msg_controllen = room - c.left;
}

ssize_t hv_udp_recvmsg(struct hv_sock *s, struct msghdr *msg, int flags)
{
	struct hv_sock_priv *p = s->p;
	struct hv_dgram d;
	ssize_t r;

	hv_lock(&G.lock);
	if (!hv_sock_vf(s)) {
		r = HV_MOVED;
		goto out;
	}
	uint64_t now = hv_now_ns();
	r = -hv_error_take(s);
	if (r < 0)
		goto out;
	/* What the kernel had before the rule comes first; afterwards both queues get their turn. What was peeked at stays the next. */
	if (!p->vf_peeked && (p->k_drain || atomic_load_explicit(&p->k_ready, memory_order_relaxed) || (p->udp.count != 0 && (flags & MSG_PEEK) == 0 && ++p->k_turn >= 64))) {
		p->k_turn = 0;
		r = from_kernel(s, msg, flags, now);
		if (r != -EAGAIN)
			goto out;
	}
	if (p->udp.count == 0) {
		hv_ring_poll(now);
		if (!hv_sock_vf(s)) {
			r = HV_MOVED;
			goto out;
		}
	}
	if (!hv_udp_peek(&p->udp, &d)) {
		r = -EAGAIN;
		if (hv_kernel_due(p, now))
			r = from_kernel(s, msg, flags, now);
		goto out;
	}
	size_t left = d.len, off = 0;
	for (size_t i = 0; i < msg->msg_iovlen && left != 0; i++) {
		size_t c = left < msg->msg_iov[i].iov_len ? left : msg->msg_iov[i].iov_len;
		memcpy(msg->msg_iov[i].iov_base, d.data + off, c);
		off += c;
		left -= c;
	}
	msg->msg_flags = (left != 0 ? MSG_TRUNC : 0) | (flags & MSG_CMSG_CLOEXEC);
	if (p->cmsgs != 0)
		cmsgs_make(s, &d, msg);
	else
		msg->msg_controllen = 0;
	if (msg->msg_name != NULL) {
		struct sockaddr_storage ss;
		socklen_t l = hv_udp_addr(s, &d.tuple, &ss);
		memcpy(msg->msg_name, &ss, msg->msg_namelen < l ? msg->msg_namelen : l);
		msg->msg_namelen = l;
	}
	r = (ssize_t)((flags & MSG_TRUNC) != 0 ? d.len : off);
	p->vf_peeked = (flags & MSG_PEEK) != 0;
	if (!p->vf_peeked) {
		hv_udp_pop(&p->udp, &G.env);
		p->vf_rx_octets += off;
		p->vf_rx_calls++;
		HV_ADD_LOCKED(vf_rx_octets, off);
		HV_ADD_LOCKED(vf_rx_calls, 1);
		if (p->items != NULL && p->udp.count == 0)
			hv_epoll_consumed(s);
		if (G.env.n_free_rx >= 32)
			hv_vf_refill(G.vf, &G.env);
	}
out:
	hv_unlock(&G.lock);
	return r;
}
