/*
 * path.c - the way to the peer while a connection is on the VF: its MTU, its device, the next hop's address.
 *
 * The kernel's socket is parked with sequence numbers of long ago, so the kernel takes an ICMP error about what we have sent for a forgery
 * and learns nothing from it. "Too big" is therefore read here, by the capture (src/failover/capture.h), and checked as the kernel would
 * (RFC 5927). What the kernel does know, from other sockets or from the operator, its route says: asked at the promotion, after each
 * retransmission timeout, and every ten minutes, which is also when a path may be found wider again (RFC 1191 6.3, RFC 8201 4).
 * G.lock held throughout.
 */
#include <netinet/in.h>

#include "engine/internal.h"
#include "stack/seq.h"
#include "stack/wire.h"

#define AGAIN_US 600000000u /* net.ipv4.route.mtu_expires, net.ipv6.route.mtu_expires */
#define MIN4 552u           /* net.ipv4.route.min_pmtu: for what is narrower Linux gives up DF, which we never do */
#define MIN6 1280u          /* RFC 8200 section 5: no link is narrower, whatever a router says */

int hv_sock_route(int fd, const struct hv_tuple *t, struct hv_route *rt)
{
	int mark = hv_sys_getint(fd, SOL_SOCKET, SO_MARK), dev = hv_sys_getint(fd, SOL_SOCKET, SO_BINDTOIFINDEX);

	return hv_route_get(t, mark > 0 ? (uint32_t)mark : 0, dev > 0 ? dev : 0, rt);
}

void hv_path_l2(uint8_t l2[14], const struct hv_route *rt, uint8_t family)
{
	memcpy(l2, rt->dst_mac, 6);
	memcpy(l2 + 6, rt->src_mac, 6);
	hv_put16(l2 + 12, family == 6 ? HV_ETHERTYPE_IP6 : HV_ETHERTYPE_IP4);
}

void hv_path_fresh(struct hv_sock *s, uint64_t now_us)
{
	s->p->path_us = now_us + AGAIN_US;
}

static unsigned set_mtu(struct hv_sock *s, uint32_t mtu, uint64_t now_us)
{
	HV_COUNT(path_mtus);
	hv_path_fresh(s, now_us);
	return hv_tcp_set_pmtu(s->p->tcb, mtu, now_us);
}

/* Nothing has come back for a while, or it's time: how would the kernel send now? Without an answer everything stays as it is: so it would
 * there. Gives the stack's actions; the socket may be in the kernel afterwards. */
unsigned hv_path_look(struct hv_sock *s, uint64_t now_us)
{
	struct hv_sock_priv *p = s->p;
	struct hv_tcp_stat st;
	struct hv_route rt;
	uint8_t l2[14];
	bool again = now_us >= p->path_us;

	if (again)
		hv_path_fresh(s, now_us);
	if (p->demote_pending || hv_sock_route(p->park.fd, &p->tuple, &rt) < 0)
		return 0;
	if (rt.local || rt.mtu_locked || (rt.ifindex != G.pair.upper && rt.ifindex != G.pair.lower)) {
		hv_demote_locked(s, rt.mtu_locked ? HV_WHY_PATH_MTU : HV_WHY_NO_ROUTE, true);
		return 0;
	}
	if (rt.have_mac) {
		hv_path_l2(l2, &rt, p->tuple.family);
		hv_tcp_set_l2(p->tcb, l2, sizeof l2);
	}
	hv_tcp_stat(p->tcb, &st);
	/* Not sooner than that: what ICMP has said the route doesn't know. */
	return rt.mtu != 0 && (rt.mtu < st.pmtu || (again && rt.mtu > st.pmtu)) ? set_mtu(s, rt.mtu, now_us) : 0;
}

/* The packet in an ICMP error is one that the tuple's local end has sent. */
static bool parse(const uint8_t *frame, uint32_t len, struct hv_tuple *t, uint32_t *seq, uint32_t *mtu)
{
	const uint8_t *l3 = frame + HV_ETH_LEN, *icmp, *in, *l4;
	struct hv_tuple outer = { .proto = IPPROTO_ICMPV6, .family = 6 };
	uint32_t n;

	memset(t, 0, sizeof *t);
	t->proto = IPPROTO_TCP;
	if (len < HV_ETH_LEN + HV_IP4_LEN)
		return false;
	len -= HV_ETH_LEN;
	if (hv_get16(frame + HV_ETH_TYPE) == HV_ETHERTYPE_IP4) {
		n = hv_get16(l3 + HV_IP4_TOTAL);
		if (l3[0] != 0x45 || l3[HV_IP4_PROTO] != IPPROTO_ICMP || (hv_get16(l3 + HV_IP4_FRAG) & HV_IP4_MF_OFF) != 0 || n > len ||
		    n < 2 * HV_IP4_LEN + 16 || hv_csum(l3, HV_IP4_LEN, 0) != 0)
			return false;
		icmp = l3 + HV_IP4_LEN;
		in = icmp + 8;
		l4 = in + HV_IP4_LEN;
		if (hv_get16(icmp) != 0x0304 || in[0] != 0x45 || in[HV_IP4_PROTO] != IPPROTO_TCP || hv_csum(icmp, n - HV_IP4_LEN, 0) != 0)
			return false;
		*mtu = hv_get16(icmp + 6);
		t->family = 4;
		memcpy(t->laddr, in + HV_IP4_SRC, 4);
		memcpy(t->raddr, in + HV_IP4_DST, 4);
	} else {
		if (hv_get16(frame + HV_ETH_TYPE) != HV_ETHERTYPE_IP6 || len < 2 * HV_IP6_LEN + 16)
			return false;
		n = hv_get16(l3 + HV_IP6_PAYLOAD);
		if (l3[HV_IP6_NEXT] != IPPROTO_ICMPV6 || n > len - HV_IP6_LEN || n < HV_IP6_LEN + 16)
			return false;
		icmp = l3 + HV_IP6_LEN;
		in = icmp + 8;
		l4 = in + HV_IP6_LEN;
		memcpy(outer.raddr, l3 + HV_IP6_SRC, 16);
		memcpy(outer.laddr, l3 + HV_IP6_DST, 16);
		if (icmp[0] != 2 || in[0] >> 4 != 6 || in[HV_IP6_NEXT] != IPPROTO_TCP ||
		    hv_csum(icmp, n, hv_csum_pseudo(&outer, false, n)) != 0)
			return false;
		*mtu = hv_max32(hv_get32(icmp + 4), MIN6);
		t->family = 6;
		memcpy(t->laddr, in + HV_IP6_SRC, 16);
		memcpy(t->raddr, in + HV_IP6_DST, 16);
	}
	memcpy(&t->lport, l4 + HV_TCP_SPORT, 2);
	memcpy(&t->rport, l4 + HV_TCP_DPORT, 2);
	*seq = hv_get32(l4 + HV_TCP_SEQ);
	return true;
}

void hv_path_icmp(const uint8_t *frame, uint32_t len, uint64_t now_us)
{
	struct hv_tcp_image img;
	struct hv_tcp_stat st;
	struct hv_tuple t;
	struct hv_sock *s;
	uint32_t seq, mtu;

	if (!parse(frame, len, &t, &seq, &mtu))
		return;
	s = hv_demux_find(&t);
	if (s == NULL || !hv_sock_vf(s) || s->p->demote_pending)
		return; /* the kernel's socket, then, has got it too */
	hv_tcp_export(s->p->tcb, &img, now_us);
	hv_tcp_stat(s->p->tcb, &st);
	/* About something that is under way (RFC 5927 4.1), and not about a wider path. */
	if (seq - img.snd_una >= img.snd_nxt - img.snd_una || mtu >= st.pmtu)
		return;
	if (t.family == 4 && mtu < MIN4)
		hv_demote_locked(s, HV_WHY_PATH_MTU, true); /* what was lost goes out once more, and the answer to that is for the kernel */
	else
		hv_sock_apply(s, set_mtu(s, mtu, now_us), now_us);
}
