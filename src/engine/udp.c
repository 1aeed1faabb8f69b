/*
 * udp.c - UDP sockets: what may be promoted, and the receive side, which serves two queues: the kernel's (synthetic path, fragments, whatever came before the
 * rule) and the VF's.
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

/* How many UDP sockets in this netns have that local port: more than one and a rule would take a sibling's datagrams. -1: can't tell. */
static int port_users(uint8_t family, uint16_t port)
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
	q.r.sdiag_family = family == 6 ? AF_INET6 : AF_INET;
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

/* Options that put something into recvmsg's control data, which only the kernel fills. */
static bool wants_cmsgs(int fd, int family)
{
	static const struct { int level, opt; } list[] = {
		{ SOL_SOCKET, SO_TIMESTAMP }, { SOL_SOCKET, SO_TIMESTAMPNS }, { SOL_SOCKET, SO_TIMESTAMPING }, { SOL_SOCKET, SO_RXQ_OVFL },
		{ IPPROTO_IP, IP_PKTINFO }, { IPPROTO_IP, IP_RECVTOS }, { IPPROTO_IP, IP_RECVTTL }, { IPPROTO_IP, IP_RECVOPTS },
		{ IPPROTO_IP, IP_RECVORIGDSTADDR }, { IPPROTO_IP, IP_RECVERR }, { IPPROTO_IP, IP_TRANSPARENT }, { IPPROTO_UDP, UDP_SEGMENT }, { IPPROTO_UDP, UDP_GRO },
		{ IPPROTO_UDP, UDP_ENCAP }, { SOL_SOCKET, SO_TXTIME },
		{ IPPROTO_IPV6, IPV6_RECVPKTINFO }, { IPPROTO_IPV6, IPV6_RECVTCLASS }, { IPPROTO_IPV6, IPV6_RECVHOPLIMIT }, { IPPROTO_IPV6, IPV6_RECVERR },
	};

	for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
		if (list[i].level == IPPROTO_IPV6 && family != AF_INET6)
			continue;
		int v[4] = { 0, 0, 0, 0 };
		socklen_t l = sizeof v;
		if (hv_sys_getsockopt(fd, list[i].level, list[i].opt, v, &l) == 0 && v[0] != 0)
			return true;
	}
	return false;
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
	if (wants_cmsgs(fd, s->family))
		return false;
	int flt = 0;
	socklen_t fl = 0;
	flt = hv_sys_getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &fl);
	if (flt == -EACCES || (flt == 0 && fl > 0))
		return false;
	*why = HV_WHY_INELIGIBLE;
	if (hv_sys_getint(fd, SOL_SOCKET, SO_REUSEPORT) == 1 || (t->rport == 0 && hv_sys_getint(fd, SOL_SOCKET, SO_REUSEADDR) == 1))
		if (port_users(t->family, t->lport) != 1)
			return false;
	if (t->rport == 0) {
		/* No peer, no route: the ring that is open, or the first pair there is, decided by the service thread. */
		*upper = hv_ring_ready() ? G.pair.upper : 0;
		int dev = 0;
		socklen_t dl = sizeof dev;
		if (hv_sys_getsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &dev, &dl) == 0 && dev != 0)
			*upper = dev;
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
	return s->p->udp.count != 0 || s->p->k_ready;
}

int hv_udp_inq(struct hv_sock *s)
{
	struct hv_dgram d;
	int r = 0;

	hv_lock(&G.lock);
	if (!hv_sock_vf(s)) {
		r = HV_MOVED;
	} else {
		hv_sys_ioctl(hv_sock_fd(s), 0x541B /* FIONREAD */, &r);
		if (r == 0 && hv_udp_peek(&s->p->udp, &d))
			r = (int)d.len;
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

static ssize_t from_kernel(struct hv_sock *s, struct msghdr *msg, int flags, uint64_t now)
{
	struct hv_sock_priv *p = s->p;
	ssize_t r = hv_sys_recvmsg(hv_sock_fd(s), msg, (flags & ~MSG_WAITALL) | MSG_DONTWAIT);

	p->k_seen_ns = now;
	if (r == -EAGAIN) {
		p->k_drain = false;
		p->k_ready = false;
		p->k_gap_ns = p->k_gap_ns < HV_KERNEL_LOOK_MAX ? p->k_gap_ns * 2 : HV_KERNEL_LOOK_MAX;
	} else if (r >= 0 && (flags & MSG_PEEK) == 0) {
		HV_COUNT(udp_kernel_path);
		p->k_gap_ns = HV_KERNEL_LOOK_NS;
	}
	return r;
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
	/* What the kernel had before the rule comes first; afterwards both queues get their turn. */
	if (p->k_drain || p->k_ready || (p->udp.count != 0 && ++p->k_turn >= 64)) {
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
		if (now - p->k_seen_ns >= p->k_gap_ns)
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
	msg->msg_flags = left != 0 ? MSG_TRUNC : 0;
	msg->msg_controllen = 0;
	if (msg->msg_name != NULL) {
		struct sockaddr_storage ss;
		socklen_t l = hv_udp_addr(s, &d.tuple, &ss);
		memcpy(msg->msg_name, &ss, msg->msg_namelen < l ? msg->msg_namelen : l);
		msg->msg_namelen = l;
	}
	r = (ssize_t)((flags & MSG_TRUNC) != 0 ? d.len : off);
	if ((flags & MSG_PEEK) == 0) {
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
