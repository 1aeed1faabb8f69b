/*
 * opt.c - socket options: what each one means for a socket on the VF. The kernel has judged and stored the option before (architecture rule
 * 4); here is the mirror that the stack needs, and the decision who may own the socket from now on.
 *
 * One table, one row an option. What isn't in it is unknown: it finds the connection alive in the kernel and, if it was set, keeps it there
 * for good. Among these are repair mode of others (CRIU), TLS, MD5 and AO keys, zero-copy receiving, filters, memberships.
 */
#include <linux/tcp.h>
#include <linux/udp.h>
#include <netinet/in.h>

#include "engine/internal.h"

#ifndef TCP_IS_MPTCP
#define TCP_IS_MPTCP 43
#endif
#ifndef TCP_NOTSENT_LOWAT
#define TCP_NOTSENT_LOWAT 25
#endif
#ifndef SO_RCVTIMEO_NEW
#define SO_RCVTIMEO_NEW 66
#define SO_SNDTIMEO_NEW 67
#endif
#ifndef SO_TIMESTAMP_NEW
#define SO_TIMESTAMP_NEW 63
#define SO_TIMESTAMPNS_NEW 64
#define SO_TIMESTAMPING_NEW 65
#endif
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#define SO_RESERVE_MEM 73
#define SO_TXREHASH 74
#define SO_RCVMARK 75
#endif
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#define SO_BUSY_POLL_BUDGET 70
#endif
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#ifndef IPV6_FLOWINFO
#define IPV6_FLOWINFO 11
#endif
#ifndef IPV6_ADDR_PREFERENCES
#define IPV6_ADDR_PREFERENCES 72
#endif
#ifndef IPV6_MINHOPCOUNT
#define IPV6_MINHOPCOUNT 73
#endif
#ifndef IPV6_ORIGDSTADDR
#define IPV6_ORIGDSTADDR 74
#endif
#ifndef IPV6_RECVFRAGSIZE
#define IPV6_RECVFRAGSIZE 77
#endif
#ifndef IP_RECVFRAGSIZE
#define IP_RECVFRAGSIZE 25
#endif
#ifndef IPV6_RECVERR_RFC4884
#define IPV6_RECVERR_RFC4884 31
#endif
#ifndef IP_RECVERR_RFC4884
#define IP_RECVERR_RFC4884 26
#endif

enum what {
	NO,    /* unknown, or only the kernel can do it: stays there for good */
	OK,    /* nothing to do: the kernel's copy is enough, or it acts when the kernel is the owner anyway */
	MIRROR,/* the stack does it; see tcp_set(), udp_set() */
	WHILE, /* the kernel does it: it owns the socket while the option is on */
	AGAIN, /* changes what a promotion finds out: the kernel owns the socket meanwhile, and it comes back by another one */
};
/* What "off" is for WHILE. */
enum off { ZERO, ONE_TOO, MINUS_ONE, ALL_ONES, PMTU_DF };

static const struct row {
	int level, opt;
	enum what tcp, udp;
	enum off off;
	uint8_t cmsg; /* UDP: control message that udp.c makes */
} table[] = {
	{ SOL_SOCKET, SO_KEEPALIVE, MIRROR, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_REUSEADDR, MIRROR, AGAIN, ZERO, 0 },
	{ SOL_SOCKET, SO_REUSEPORT, OK, AGAIN, ZERO, 0 },
	{ SOL_SOCKET, SO_RCVBUF, MIRROR, MIRROR, ZERO, 0 },
	{ SOL_SOCKET, SO_RCVBUFFORCE, MIRROR, MIRROR, ZERO, 0 },
	{ SOL_SOCKET, SO_SNDBUF, MIRROR, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_SNDBUFFORCE, MIRROR, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_BUF_LOCK, OK, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_RESERVE_MEM, OK, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_RCVLOWAT, WHILE, OK, ONE_TOO, 0 },
	{ SOL_SOCKET, SO_RCVTIMEO, OK, OK, ZERO, 0 }, /* above the engine, as is */
	{ SOL_SOCKET, SO_SNDTIMEO, OK, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_RCVTIMEO_NEW, OK, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_SNDTIMEO_NEW, OK, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_LINGER, OK, OK, ZERO, 0 }, /* close() is the kernel's */
	{ SOL_SOCKET, SO_PRIORITY, OK, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_DEBUG, OK, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_OOBINLINE, OK, OK, ZERO, 0 }, /* urgent data are */
	{ SOL_SOCKET, SO_BROADCAST, OK, OK, ZERO, 0 }, /* and broadcasts */
	{ SOL_SOCKET, SO_BUSY_POLL, OK, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_PREFER_BUSY_POLL, OK, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_BUSY_POLL_BUDGET, OK, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_INCOMING_CPU, OK, AGAIN, ZERO, 0 },
	{ SOL_SOCKET, SO_TXREHASH, OK, OK, ZERO, 0 },
	{ SOL_SOCKET, SO_DONTROUTE, WHILE, WHILE, ZERO, 0 },
	{ SOL_SOCKET, SO_MARK, AGAIN, WHILE, ZERO, 0 },
	{ SOL_SOCKET, SO_BINDTODEVICE, AGAIN, AGAIN, ZERO, 0 },
	{ SOL_SOCKET, SO_BINDTOIFINDEX, AGAIN, AGAIN, ZERO, 0 },
	{ SOL_SOCKET, SO_PEEK_OFF, WHILE, WHILE, MINUS_ONE, 0 },
	{ SOL_SOCKET, SO_ZEROCOPY, WHILE, WHILE, ZERO, 0 }, /* completions are the kernel's buffers' */
	{ SOL_SOCKET, SO_MAX_PACING_RATE, WHILE, WHILE, ALL_ONES, 0 },
	{ SOL_SOCKET, SO_SELECT_ERR_QUEUE, WHILE, WHILE, ZERO, 0 },
	/* A time stamp says when a packet has arrived; when the VF's ring was looked at is another time. */
	{ SOL_SOCKET, SO_TIMESTAMP, WHILE, WHILE, ZERO, 0 },
	{ SOL_SOCKET, SO_TIMESTAMPNS, WHILE, WHILE, ZERO, 0 },
	{ SOL_SOCKET, SO_TIMESTAMPING, WHILE, WHILE, ZERO, 0 },
	{ SOL_SOCKET, SO_TIMESTAMP_NEW, WHILE, WHILE, ZERO, 0 },
	{ SOL_SOCKET, SO_TIMESTAMPNS_NEW, WHILE, WHILE, ZERO, 0 },
	{ SOL_SOCKET, SO_TIMESTAMPING_NEW, WHILE, WHILE, ZERO, 0 },
	{ SOL_SOCKET, SO_RXQ_OVFL, OK, WHILE, ZERO, 0 }, /* one count over both queues, which must not go back */
	{ SOL_SOCKET, SO_RCVMARK, OK, WHILE, ZERO, 0 },
	{ SOL_SOCKET, SO_TXTIME, NO, WHILE, ZERO, 0 },

	{ IPPROTO_TCP, TCP_NODELAY, MIRROR, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_CORK, MIRROR, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_QUICKACK, MIRROR, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_KEEPIDLE, MIRROR, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_KEEPINTVL, MIRROR, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_KEEPCNT, MIRROR, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_USER_TIMEOUT, MIRROR, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, MIRROR, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_WINDOW_CLAMP, MIRROR, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_MAXSEG, MIRROR, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_CONGESTION, MIRROR, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_LINGER2, OK, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_SYNCNT, OK, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_DEFER_ACCEPT, OK, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, OK, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_THIN_DUPACK, OK, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_FASTOPEN, OK, NO, ZERO, 0 }, /* these act before the connection is established */
	{ IPPROTO_TCP, TCP_FASTOPEN_CONNECT, OK, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_FASTOPEN_KEY, OK, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, OK, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_SAVE_SYN, OK, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_INFO, OK, NO, ZERO, 0 }, /* to be read only */
	{ IPPROTO_TCP, TCP_CC_INFO, OK, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_SAVED_SYN, OK, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_IS_MPTCP, OK, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_INQ, WHILE, NO, ZERO, 0 },
	{ IPPROTO_TCP, TCP_TX_DELAY, WHILE, NO, ZERO, 0 },

	{ IPPROTO_IP, IP_TOS, MIRROR, MIRROR, ZERO, 0 },
	{ IPPROTO_IP, IP_TTL, MIRROR, MIRROR, ZERO, 0 },
	{ IPPROTO_IP, IP_MTU_DISCOVER, WHILE, WHILE, PMTU_DF, 0 }, /* every packet of ours has DF */
	{ IPPROTO_IP, IP_PKTINFO, OK, MIRROR, ZERO, HV_CM_PKTINFO },
	{ IPPROTO_IP, IP_RECVTTL, OK, MIRROR, ZERO, HV_CM_TTL },
	{ IPPROTO_IP, IP_RECVTOS, OK, MIRROR, ZERO, HV_CM_TOS },
	{ IPPROTO_IP, IP_RECVORIGDSTADDR, OK, MIRROR, ZERO, HV_CM_ORIGDST },
	{ IPPROTO_IP, IP_RECVOPTS, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IP, IP_RETOPTS, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IP, IP_RECVFRAGSIZE, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IP, IP_CHECKSUM, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IP, IP_PASSSEC, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IP, IP_RECVERR, WHILE, WHILE, ZERO, 0 }, /* reports what the stack has no memory of */
	{ IPPROTO_IP, IP_RECVERR_RFC4884, WHILE, WHILE, ZERO, 0 },
	{ IPPROTO_IP, IP_TRANSPARENT, WHILE, WHILE, ZERO, 0 },
	{ IPPROTO_IP, IP_MINTTL, WHILE, WHILE, ZERO, 0 },
	{ IPPROTO_IP, IP_UNICAST_IF, WHILE, WHILE, ZERO, 0 },
	{ IPPROTO_IP, IP_FREEBIND, OK, OK, ZERO, 0 },
	{ IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, OK, OK, ZERO, 0 },
	{ IPPROTO_IP, IP_LOCAL_PORT_RANGE, OK, OK, ZERO, 0 },
	{ IPPROTO_IP, IP_MULTICAST_TTL, OK, OK, ZERO, 0 }, /* multicast goes by the kernel's path */
	{ IPPROTO_IP, IP_MULTICAST_LOOP, OK, OK, ZERO, 0 },
	{ IPPROTO_IP, IP_MULTICAST_IF, OK, OK, ZERO, 0 },
	{ IPPROTO_IP, IP_MULTICAST_ALL, OK, OK, ZERO, 0 },

	{ IPPROTO_IPV6, IPV6_TCLASS, MIRROR, MIRROR, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_UNICAST_HOPS, MIRROR, MIRROR, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_V6ONLY, OK, OK, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, OK, AGAIN, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_MTU_DISCOVER, WHILE, WHILE, PMTU_DF, 0 },
	{ IPPROTO_IPV6, IPV6_RECVPKTINFO, OK, MIRROR, ZERO, HV_CM_PKTINFO6 },
	{ IPPROTO_IPV6, IPV6_RECVHOPLIMIT, OK, MIRROR, ZERO, HV_CM_HOPLIMIT },
	{ IPPROTO_IPV6, IPV6_RECVTCLASS, OK, MIRROR, ZERO, HV_CM_TCLASS },
	{ IPPROTO_IPV6, IPV6_2292PKTINFO, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_2292HOPLIMIT, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_FLOWINFO, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_RECVRTHDR, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_RECVHOPOPTS, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_RECVDSTOPTS, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_RECVPATHMTU, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_ORIGDSTADDR, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_RECVFRAGSIZE, OK, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_RECVERR, WHILE, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_RECVERR_RFC4884, WHILE, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_TRANSPARENT, WHILE, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_MINHOPCOUNT, WHILE, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_UNICAST_IF, WHILE, WHILE, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_MULTICAST_HOPS, OK, OK, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_MULTICAST_LOOP, OK, OK, ZERO, 0 },
	{ IPPROTO_IPV6, IPV6_MULTICAST_IF, OK, OK, ZERO, 0 },

	{ IPPROTO_UDP, UDP_CORK, NO, WHILE, ZERO, 0 },
	{ IPPROTO_UDP, UDP_SEGMENT, NO, WHILE, ZERO, 0 },
	{ IPPROTO_UDP, UDP_GRO, NO, WHILE, ZERO, 0 },
	{ IPPROTO_UDP, UDP_ENCAP, NO, WHILE, ZERO, 0 },
	{ IPPROTO_UDP, UDP_NO_CHECK6_TX, NO, WHILE, ZERO, 0 },
	{ IPPROTO_UDP, UDP_NO_CHECK6_RX, NO, WHILE, ZERO, 0 },
};
#define ROWS (sizeof table / sizeof table[0])
_Static_assert(ROWS <= 128, "hv_sock_priv.held has a bit for each");

static const struct row *row_of(int level, int opt)
{
	for (size_t i = 0; i < ROWS; i++)
		if (table[i].level == level && table[i].opt == opt)
			return &table[i];
	return NULL;
}

static bool is_off(enum off off, int v)
{
	switch (off) {
	case ZERO: return v == 0;
	case ONE_TOO: return v == 0 || v == 1;
	case MINUS_ONE: return v < 0;
	case ALL_ONES: return v == -1;
	case PMTU_DF: return v == IP_PMTUDISC_WANT || v == IP_PMTUDISC_DO; /* the same numbers for IPv6 */
	}
	return false;
}

static void hold(struct hv_sock_priv *p, const struct row *r, bool on)
{
	size_t i = (size_t)(r - table);
	uint64_t bit = 1ull << (i & 63);

	p->held[i >> 6] = on ? p->held[i >> 6] | bit : p->held[i >> 6] & ~bit;
}

/* What the program has chosen and the kernel doesn't tell apart from its own figures: kept here from the beginning, for the hand-off. */
static void remember(struct hv_sock_priv *p, int level, int opt, int v)
{
	if (level != IPPROTO_TCP)
		return;
	if (opt == TCP_MAXSEG)
		p->park.user_mss = v;
	else if (opt == TCP_WINDOW_CLAMP)
		p->user_clamp = v == 0 ? 0 : hv_sys_getint(hv_sock_fd(p->s), IPPROTO_TCP, TCP_WINDOW_CLAMP); /* raised to a minimum */
}

static int congestion_of(const void *val, socklen_t len)
{
	char name[17] = "";

	memcpy(name, val, len < 16 ? len : 16);
	return strcmp(name, "cubic") == 0 ? HV_TCP_CC_CUBIC : strcmp(name, "reno") == 0 ? HV_TCP_CC_RENO : -1;
}

/* Lock held, on the VF. */
static void tcp_set(struct hv_sock *s, const struct row *r, int v)
{
	struct hv_sock_priv *p = s->p;
	bool v6 = p->tuple.family == 6;
	enum hv_tcp_opt o;

	switch (r->level << 16 | r->opt) {
	case SOL_SOCKET << 16 | SO_KEEPALIVE:
		/* On the parked kernel socket it must stay off: its timer doesn't know that it is parked. */
		p->park.keepalive = v != 0;
		hv_sys_setint(p->park.fd, SOL_SOCKET, SO_KEEPALIVE, 0);
		o = HV_TCP_KEEPALIVE;
		v = v != 0;
		break;
	case SOL_SOCKET << 16 | SO_REUSEADDR:
		p->park.reuseaddr = v != 0;
		return;
	case SOL_SOCKET << 16 | SO_RCVBUF:
	case SOL_SOCKET << 16 | SO_RCVBUFFORCE:
		v = hv_sys_getint(p->park.fd, SOL_SOCKET, SO_RCVBUF) / 2; /* half of it is overhead, see read_options() of the hand-off */
		o = HV_TCP_RCVBUF;
		break;
	case SOL_SOCKET << 16 | SO_SNDBUF:
	case SOL_SOCKET << 16 | SO_SNDBUFFORCE:
		v = hv_sys_getint(p->park.fd, SOL_SOCKET, SO_SNDBUF) / 2;
		o = HV_TCP_SNDBUF;
		break;
	case IPPROTO_TCP << 16 | TCP_NODELAY: o = HV_TCP_NODELAY; break;
	case IPPROTO_TCP << 16 | TCP_CORK: o = HV_TCP_CORK; break;
	case IPPROTO_TCP << 16 | TCP_QUICKACK: o = HV_TCP_QUICKACK; p->park.quickack = v; break;
	case IPPROTO_TCP << 16 | TCP_KEEPIDLE: o = HV_TCP_KEEPIDLE; break;
	case IPPROTO_TCP << 16 | TCP_KEEPINTVL: o = HV_TCP_KEEPINTVL; break;
	case IPPROTO_TCP << 16 | TCP_KEEPCNT: o = HV_TCP_KEEPCNT; break;
	case IPPROTO_TCP << 16 | TCP_USER_TIMEOUT: o = HV_TCP_USER_TIMEOUT; break;
	case IPPROTO_TCP << 16 | TCP_NOTSENT_LOWAT: o = HV_TCP_NOTSENT_LOWAT; break;
	case IPPROTO_TCP << 16 | TCP_WINDOW_CLAMP: o = HV_TCP_WINDOW_CLAMP; v = p->park.window_clamp = p->user_clamp; break;
	case IPPROTO_TCP << 16 | TCP_CONGESTION: o = HV_TCP_CONGESTION; v = p->cc; break;
	case IPPROTO_IP << 16 | IP_TOS:
	case IPPROTO_IP << 16 | IP_TTL:
		if (v6)
			return;
		o = r->opt == IP_TOS ? HV_TCP_TOS : HV_TCP_TTL;
		v = hv_sys_getint(p->park.fd, r->level, r->opt); /* without what the kernel doesn't take, and the default for -1 */
		break;
	case IPPROTO_IPV6 << 16 | IPV6_TCLASS:
	case IPPROTO_IPV6 << 16 | IPV6_UNICAST_HOPS:
		if (!v6)
			return;
		o = r->opt == IPV6_TCLASS ? HV_TCP_TOS : HV_TCP_TTL;
		v = hv_sys_getint(p->park.fd, r->level, r->opt);
		break;
	default: /* TCP_MAXSEG: says something to the next SYN only */
		return;
	}
	if (v < 0 && (o == HV_TCP_TOS || o == HV_TCP_TTL || o == HV_TCP_RCVBUF || o == HV_TCP_SNDBUF))
		return;
	uint64_t now = hv_now_us();
	hv_sock_apply(s, hv_tcp_setopt(p->tcb, o, (uint32_t)v, now), now);
}

static void udp_set(struct hv_sock *s, const struct row *r, int v)
{
	struct hv_udp *u = &s->p->udp;
	int fd = hv_sock_fd(s);

	if (r->cmsg != 0) {
		s->p->cmsgs = v != 0 ? s->p->cmsgs | r->cmsg : s->p->cmsgs & (uint8_t)~r->cmsg;
		return;
	}
	if (r->level == SOL_SOCKET) { /* SO_RCVBUF */
		v = hv_sys_getint(fd, SOL_SOCKET, SO_RCVBUF);
		if (v > 0)
			u->rcvbuf = (uint32_t)v;
		if (u->count == u->slots)
			hv_udp_store_drop(s); /* the next one has the right size */
		return;
	}
	if ((r->level == IPPROTO_IPV6) != (s->p->tuple.family == 6))
		return;
	v = hv_sys_getint(fd, r->level, r->opt);
	if (v >= 0 && (r->opt == IP_TTL || r->opt == IPV6_UNICAST_HOPS))
		u->ttl = (uint8_t)v;
	else if (v >= 0)
		u->tos = (uint8_t)v;
}

static enum what what(const struct hv_sock *s, const struct row *r)
{
	return r == NULL ? NO : s->type == SOCK_STREAM ? r->tcp : r->udp;
}

bool hv_sock_option_live(const struct hv_sock *s, int level, int opt, bool set)
{
	enum what w = what(s, row_of(level, opt));

	return set ? w == NO || w == AGAIN : w == NO && level == IPPROTO_TCP;
}

enum hv_opt_end hv_sock_option(struct hv_sock *s, int level, int opt, const void *val, socklen_t len)
{
	const struct row *r = row_of(level, opt);
	bool tcp = s->type == SOCK_STREAM;
	enum what w = what(s, r);
	struct hv_sock_priv *p = s->p;
	enum hv_opt_end end = HV_OPT_FINE;
	bool cc = level == IPPROTO_TCP && opt == TCP_CONGESTION;
	int v = 0;

	if (w == OK)
		return HV_OPT_FINE;
	if (len == 1) /* the kernel takes a single octet as a number for many IP options */
		v = *(const uint8_t *)val;
	else if (!cc)
		memcpy(&v, val, len < sizeof v ? len : sizeof v);
	hv_lock(&G.lock);
	hv_fork_changed(p->fork_gen);
	switch (w) {
	case NO:
		p->opt_pin = true;
		end = HV_OPT_PIN;
		break;
	case AGAIN:
		end = HV_OPT_KERNEL;
		break;
	case WHILE:
		/* A UDP socket is asked at each promotion; TCP promotions are many, and nothing else changes these. */
		if (tcp)
			hold(p, r, !is_off(r->off, v));
		if (!is_off(r->off, v))
			end = HV_OPT_KERNEL;
		break;
	default:
		if (cc) {
			p->cc = (int8_t)congestion_of(val, len);
			p->cc_set = true;
			hold(p, r, p->cc < 0);
			if (p->cc < 0) {
				end = HV_OPT_KERNEL;
				break;
			}
		}
		remember(p, level, opt, v);
		if (hv_sock_vf(s)) {
			if (tcp)
				tcp_set(s, r, v);
			else
				udp_set(s, r, v);
		}
		break;
	}
	hv_unlock(&G.lock);
	return end;
}

/* What an accepted socket has from its listener, as far as only we know it. */
void hv_sock_inherit(struct hv_sock *s, const struct hv_sock *from)
{
	struct hv_sock_priv *p = s->p, *l = from->p;

	hv_lock(&G.lock); /* another thread may set options of the listener */
	memcpy(p->held, l->held, sizeof p->held);
	p->park.user_mss = l->park.user_mss;
	p->user_clamp = l->user_clamp;
	p->cc = l->cc;
	p->cc_set = l->cc_set;
	p->opt_pin = l->opt_pin;
	hv_unlock(&G.lock);
	if (p->opt_pin)
		hv_sock_pin(s, HV_WHY_OPTION);
}

/* Before a UDP promotion: does the kernel have to keep it? Collects the control messages that are wanted. */
bool hv_udp_options_fit(struct hv_sock *s, int fd)
{
	struct hv_sock_priv *p = s->p;
	socklen_t l;
	int v;

	p->cmsgs = 0;
	for (const struct row *r = table; r < table + ROWS; r++) {
		if ((r->level == IPPROTO_IPV6 && s->family != AF_INET6) || (r->udp != WHILE && r->cmsg == 0))
			continue;
		int out[8] = { 0 };
		l = sizeof out;
		if (hv_sys_getsockopt(fd, r->level, r->opt, out, &l) < 0 || l == 0)
			continue; /* this kernel doesn't have it */
		v = l == 1 ? *(uint8_t *)out : out[0];
		if (r->udp == WHILE) {
			if (!is_off(r->off, v))
				return false;
		} else if (v != 0) {
			p->cmsgs |= r->cmsg;
		}
	}
	uint8_t ipopt[64];
	l = sizeof ipopt;
	return hv_sys_getsockopt(fd, IPPROTO_IP, IP_OPTIONS, ipopt, &l) < 0 || l == 0; /* sent with each packet */
}

static int put(void *val, socklen_t *len, const void *src, socklen_t n)
{
	if (*len > n)
		*len = n;
	memcpy(val, src, *len);
	return (int)*len;
}

int hv_vf_getsockopt(struct hv_sock *s, int level, int opt, void *val, socklen_t *len)
{
	uint8_t info[512];
	int r = 0, v = -1;

	if (s->type != SOCK_STREAM)
		return 0;
	hv_lock(&G.lock);
	if (!hv_sock_vf(s)) {
		r = HV_MOVED;
	} else if (level == IPPROTO_TCP && opt == TCP_INFO) {
		r = hv_info_vf(s, info, sizeof info);
		if (r > 0)
			r = put(val, len, info, (socklen_t)r);
	} else if (level == SOL_SOCKET && opt == SO_MEMINFO) {
		r = hv_meminfo_vf(s, (uint32_t *)(void *)info, sizeof info);
		if (r > 0)
			r = put(val, len, info, (socklen_t)r);
	} else if (level == IPPROTO_TCP && opt == TCP_MAXSEG) { /* in repair mode the kernel would tell the clamp */
		struct hv_tcp_stat st;
		hv_tcp_stat(s->p->tcb, &st);
		v = (int)st.snd_mss;
	} else if ((level == IPPROTO_IP && opt == IP_MTU && s->p->tuple.family == 4) ||
		   (level == IPPROTO_IPV6 && opt == IPV6_MTU && s->p->tuple.family == 6)) {
		struct hv_tcp_stat st; /* the parked socket's route may be an old one */
		hv_tcp_stat(s->p->tcb, &st);
		v = (int)st.pmtu;
	} else if (level == SOL_SOCKET && opt == SO_KEEPALIVE) {
		v = s->p->park.keepalive;
	} else if (level == SOL_SOCKET && opt == SO_REUSEADDR) {
		v = s->p->park.reuseaddr;
	} else if (level == IPPROTO_TCP && opt == TCP_WINDOW_CLAMP && s->p->user_clamp > 0) {
		v = s->p->user_clamp;
	}
	if (v >= 0)
		r = put(val, len, &v, sizeof v);
	hv_unlock(&G.lock);
	return r;
}
