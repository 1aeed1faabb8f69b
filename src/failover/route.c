/*
 * route.c - RTM_GETROUTE, RTM_GETLINK and RTM_GETNEIGH over a kernel netlink socket, one question and one answer at a time.
 *
 * The socket is opened at the first question and kept, high up: a descriptor that comes and goes at the bottom of the table would be in the way of
 * programs that count on getting the lowest one. Answers are not kept. Any thread may call; `busy` serialises. A forked child opens its own.
 */
#include <errno.h>
#include <linux/if.h>
#include <linux/ipv6.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <string.h>

#include "base/sys.h"
#include "failover/internal.h"
#include "failover/route.h"

#define ANSWER_MAX 16384u
#define MESSAGES_MAX 64

struct request {
	struct nlmsghdr h;
	union { struct rtmsg rt; struct ifinfomsg link; struct ndmsg neigh; } u;
	uint8_t attrs[160];
};

static int nl_fd = -1, nl_pid; /* nl_fd is read without `busy` by hv_route_fd() */
static uint32_t nl_seq;
static int busy;
static uint8_t answer[ANSWER_MAX] __attribute__((aligned(8)));

static void take(void)
{
	while (__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE) != 0)
		HV_SYS(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}
static void give(void) { __atomic_store_n(&busy, 0, __ATOMIC_RELEASE); }

void hv_route_child(void)
{
	hv_fd_drop(&nl_fd);
	busy = 0;
}

int hv_route_fd(void) { return __atomic_load_n(&nl_fd, __ATOMIC_RELAXED); }

static int nl_open(void)
{
	int pid = hv_sys_getpid();

	if (nl_fd >= 0 && nl_pid == pid)
		return 0;
	hv_fd_drop(&nl_fd);
	__atomic_store_n(&nl_fd, hv_sys_high(hv_sys_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)), __ATOMIC_RELAXED);
	nl_pid = pid;
	return nl_fd < 0 ? nl_fd : 0;
}

static void begin(struct request *q, uint16_t type, size_t body)
{
	memset(q, 0, sizeof *q);
	q->h.nlmsg_len = (uint32_t)NLMSG_LENGTH(body);
	q->h.nlmsg_type = type;
	q->h.nlmsg_flags = NLM_F_REQUEST;
}

static void add(struct request *q, uint16_t type, const void *p, size_t len)
{
	struct rtattr *a = (struct rtattr *)(void *)((uint8_t *)q + NLMSG_ALIGN(q->h.nlmsg_len));

	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(len);
	memcpy(RTA_DATA(a), p, len);
	q->h.nlmsg_len = (uint32_t)(NLMSG_ALIGN(q->h.nlmsg_len) + RTA_ALIGN(a->rta_len));
}

/* Sends, and gives the first answer of that type. The kernel answers within sendto(). */
static int ask(struct request *q, uint16_t want, struct nlmsghdr **out)
{
	int r = nl_open();

	if (r < 0)
		return r;
	q->h.nlmsg_seq = ++nl_seq;
	ssize_t n = hv_sys_send(nl_fd, q, q->h.nlmsg_len, 0);
	if (n < 0)
		return (int)n;
	for (int i = 0; i < MESSAGES_MAX; i++) {
		n = hv_sys_recv(nl_fd, answer, sizeof answer, MSG_DONTWAIT);
		if (n == -EINTR)
			continue;
		if (n < 0)
			return n == -EAGAIN ? -ENODATA : (int)n;
		uint32_t left = (uint32_t)n;
		for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_seq != nl_seq)
				continue; /* of a question that was given up */
			if (h->nlmsg_type == NLMSG_ERROR) {
				const struct nlmsgerr *e = NLMSG_DATA(h);
				return e->error != 0 ? e->error : -ENODATA;
			}
			if (h->nlmsg_type == want) {
				*out = h;
				return 0;
			}
		}
	}
	return -ENODATA;
}

static const struct rtattr *attr(const void *first, uint32_t left, uint16_t type)
{
	for (const struct rtattr *a = first; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if ((a->rta_type & NLA_TYPE_MASK) == type)
			return a;
	return NULL;
}

static uint32_t attr_u32(const struct rtattr *a)
{
	uint32_t v = 0;

	if (a != NULL && RTA_PAYLOAD(a) >= sizeof v)
		memcpy(&v, RTA_DATA(a), sizeof v);
	return v;
}

struct next_hop { int family; uint8_t addr[16]; bool unicast; };

static int ask_route(const struct hv_tuple *t, uint32_t mark, int oif, struct hv_route *r, struct next_hop *nh)
{
	struct request q;
	struct nlmsghdr *h;
	size_t al = t->family == 6 ? 16 : 4;
	uint32_t dev = oif != 0 ? (uint32_t)oif : t->scope, uid = (uint32_t)HV_SYS(SYS_geteuid, 0, 0, 0, 0, 0, 0);

	begin(&q, RTM_GETROUTE, sizeof q.u.rt);
	q.u.rt.rtm_family = t->family == 6 ? AF_INET6 : AF_INET;
	q.u.rt.rtm_dst_len = q.u.rt.rtm_src_len = (uint8_t)(al * 8);
	add(&q, RTA_DST, t->raddr, al);
	add(&q, RTA_SRC, t->laddr, al);
	if (dev != 0)
		add(&q, RTA_OIF, &dev, sizeof dev);
	if (mark != 0)
		add(&q, RTA_MARK, &mark, sizeof mark);
	add(&q, RTA_UID, &uid, sizeof uid);
	/* Rules and multipath hashes may look at the ports. */
	add(&q, RTA_IP_PROTO, &t->proto, 1);
	if (t->lport != 0)
		add(&q, RTA_SPORT, &t->lport, 2);
	if (t->rport != 0)
		add(&q, RTA_DPORT, &t->rport, 2);
	int e = ask(&q, RTM_NEWROUTE, &h);
	if (e < 0)
		return e;
	const struct rtmsg *m = NLMSG_DATA(h);
	const struct rtattr *first = RTM_RTA(m), *a;
	uint32_t left = (uint32_t)RTM_PAYLOAD(h);

	r->local = m->rtm_type == RTN_LOCAL;
	nh->unicast = m->rtm_type == RTN_UNICAST;
	if (m->rtm_type == RTN_UNREACHABLE || m->rtm_type == RTN_BLACKHOLE)
		return -EHOSTUNREACH;
	if (m->rtm_type == RTN_PROHIBIT)
		return -EACCES;
	if (attr(first, left, RTA_ENCAP_TYPE) != NULL)
		return -EOPNOTSUPP; /* a lightweight tunnel: what leaves is not what we would build */
	r->ifindex = (int)attr_u32(attr(first, left, RTA_OIF));
	a = attr(first, left, RTA_METRICS);
	if (a != NULL) {
		const struct rtattr *m1 = RTA_DATA(a);
		r->mtu = attr_u32(attr(m1, (uint32_t)RTA_PAYLOAD(a), RTAX_MTU));
		r->mtu_locked = (attr_u32(attr(m1, (uint32_t)RTA_PAYLOAD(a), RTAX_LOCK)) & 1u << RTAX_MTU) != 0;
	}
	nh->family = q.u.rt.rtm_family;
	memcpy(nh->addr, t->raddr, al);
	a = attr(first, left, RTA_GATEWAY);
	if (a != NULL && RTA_PAYLOAD(a) >= al) {
		memcpy(nh->addr, RTA_DATA(a), al);
	} else if ((a = attr(first, left, RTA_VIA)) != NULL && RTA_PAYLOAD(a) >= sizeof(struct rtvia)) {
		const struct rtvia *v = RTA_DATA(a);
		size_t vl = RTA_PAYLOAD(a) - sizeof *v;
		nh->family = v->rtvia_family;
		memcpy(nh->addr, v->rtvia_addr, vl < 16 ? vl : 16);
	}
	return 0;
}

/* IPv6 has an MTU of its own on each device, which a router advertisement or the operator may have lowered. */
static uint32_t link_mtu6(const struct rtattr *first, uint32_t left)
{
	const struct rtattr *a = attr(first, left, IFLA_AF_SPEC);

	if (a != NULL)
		a = attr(RTA_DATA(a), (uint32_t)RTA_PAYLOAD(a), AF_INET6);
	if (a != NULL)
		a = attr(RTA_DATA(a), (uint32_t)RTA_PAYLOAD(a), IFLA_INET6_CONF);
	uint32_t conf[DEVCONF_MTU6 + 1] = { 0 };
	if (a != NULL && RTA_PAYLOAD(a) >= sizeof conf)
		memcpy(conf, RTA_DATA(a), sizeof conf);
	return conf[DEVCONF_MTU6];
}

static int ask_link(struct hv_route *r, int family)
{
	struct request q;
	struct nlmsghdr *h;
	uint32_t skip = RTEXT_FILTER_SKIP_STATS;

	begin(&q, RTM_GETLINK, sizeof q.u.link);
	q.u.link.ifi_index = r->ifindex;
	add(&q, IFLA_EXT_MASK, &skip, sizeof skip);
	int e = ask(&q, RTM_NEWLINK, &h);
	if (e < 0)
		return e;
	const struct ifinfomsg *m = NLMSG_DATA(h);
	const struct rtattr *first = IFLA_RTA(m), *a;
	uint32_t left = (uint32_t)IFLA_PAYLOAD(h), mtu = attr_u32(attr(first, left, IFLA_MTU));

	if (m->ifi_flags & IFF_LOOPBACK)
		r->local = true;
	if (r->mtu == 0 || (mtu != 0 && mtu < r->mtu))
		r->mtu = mtu;
	mtu = family == 6 ? link_mtu6(first, left) : 0;
	if (mtu != 0 && mtu < r->mtu)
		r->mtu = mtu;
	a = attr(first, left, IFLA_ADDRESS);
	if (a == NULL || RTA_PAYLOAD(a) != 6)
		return 1; /* not an Ethernet device: no neighbours either */
	memcpy(r->src_mac, RTA_DATA(a), 6);
	return 0;
}

static void ask_neigh(struct hv_route *r, const struct next_hop *nh)
{
	struct request q;
	struct nlmsghdr *h;

	begin(&q, RTM_GETNEIGH, sizeof q.u.neigh);
	q.u.neigh.ndm_family = (uint8_t)nh->family;
	q.u.neigh.ndm_ifindex = r->ifindex;
	add(&q, NDA_DST, nh->addr, nh->family == AF_INET6 ? 16 : 4);
	if (ask(&q, RTM_NEWNEIGH, &h) < 0)
		return;
	const struct ndmsg *m = NLMSG_DATA(h);
	const struct rtattr *a = attr((const uint8_t *)m + NLMSG_ALIGN(sizeof *m), (uint32_t)NLMSG_PAYLOAD(h, sizeof *m), NDA_LLADDR);

	if ((m->ndm_state & (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT)) == 0 || a == NULL || RTA_PAYLOAD(a) != 6)
		return;
	memcpy(r->dst_mac, RTA_DATA(a), 6);
	r->have_mac = true;
}

int hv_route_get(const struct hv_tuple *t, uint32_t mark, int bound_ifindex, struct hv_route *r)
{
	struct next_hop nh;

	memset(r, 0, sizeof *r);
	memset(&nh, 0, sizeof nh);
	take();
	int e = ask_route(t, mark, bound_ifindex, r, &nh);
	if (e == 0)
		e = ask_link(r, t->family);
	if (e == 0 && !r->local && nh.unicast)
		ask_neigh(r, &nh);
	give();
	return e < 0 ? e : 0;
}
