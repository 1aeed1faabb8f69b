/*
 * udp.c - UDP as pure functions: the receive list of a promoted socket, and headers for one datagram to send.
 *
 * Owns struct hv_udp. Called by the engine, tests and fuzzers with the ring's lock held.
 */
#include "stack/udp.h"
#include "stack/frame_l3.h"
#include "stack/wire.h"

void hv_udp_init(struct hv_udp *u, const struct hv_tuple *t, uint32_t rcvbuf)
{
	memset(u, 0, sizeof *u);
	u->tail = &u->head;
	u->rcvbuf = rcvbuf;
	u->tuple = *t;
	u->tuple.proto = HV_PROTO_UDP;
}

static bool zero16(const uint8_t *p)
{
	uint64_t w[2];

	memcpy(w, p, 16);
	return (w[0] | w[1]) == 0;
}

static bool ours(const struct hv_udp *u, const struct hv_tuple *t)
{
	if (t->family != u->tuple.family || t->proto != HV_PROTO_UDP || t->lport != u->tuple.lport)
		return false;
	if (memcmp(t->laddr, u->tuple.laddr, 16) != 0 && !zero16(u->tuple.laddr))
		return false;
	if (u->tuple.rport == 0)
		return true;
	return t->rport == u->tuple.rport && memcmp(t->raddr, u->tuple.raddr, 16) == 0;
}

bool hv_udp_input(struct hv_udp *u, struct hv_buf *buf, uint8_t *l3, uint32_t l3_len, bool csum_ok)
{
	struct hv_frame f;
	uint32_t ulen;

	if (!hv_l3_parse(l3, l3_len, &f) || !ours(u, &f.tuple))
		return false;
	ulen = hv_get16(f.l4 + HV_UDP_ULEN);
	if (ulen < HV_UDP_LEN || ulen > f.l4_len)
		return false;
	/* A device calls a datagram without checksum good or unknown; over IPv6 there is no such thing (RFC 8200 8.1). */
	if (f.tuple.family == 6 && hv_get16(f.l4 + HV_UDP_CSUM) == 0)
		return false;
	if (!csum_ok && !hv_frame_csum_ok(&f))
		return false;
	/* The whole slot is charged: it is what the datagram keeps away from the ring. */
	if (u->octets + buf->cap > u->rcvbuf && u->count != 0) {
		u->drops++;
		return false;
	}
	buf->meta = (uint32_t)(l3 - buf->base);
	buf->data = f.l4 + HV_UDP_LEN;
	buf->len = ulen - HV_UDP_LEN;
	buf->next = NULL;
	*u->tail = buf;
	u->tail = &buf->next;
	u->count++;
	u->octets += buf->cap;
	return true;
}

bool hv_udp_peek(const struct hv_udp *u, struct hv_dgram *d)
{
	struct hv_buf *b = u->head;
	struct hv_frame f;
	uint8_t *l3;

	if (b == NULL)
		return false;
	l3 = b->base + b->meta;
	if (!hv_l3_parse(l3, (uint32_t)(b->base + b->cap - l3), &f))
		return false; /* cannot be: it was parsed on arrival */
	d->buf = b;
	d->data = b->data;
	d->len = b->len;
	d->tuple = f.tuple;
	d->tos = f.tos;
	d->ttl = f.ttl;
	return true;
}

void hv_udp_pop(struct hv_udp *u, struct hv_env *env)
{
	struct hv_buf *b = u->head;

	if (b == NULL)
		return;
	u->head = b->next;
	if (u->head == NULL)
		u->tail = &u->head;
	u->count--;
	u->octets -= b->cap;
	b->next = env->free_rx;
	env->free_rx = b;
	env->n_free_rx++;
}

void hv_udp_release(struct hv_udp *u, struct hv_env *env)
{
	while (u->head != NULL)
		hv_udp_pop(u, env);
}

bool hv_udp_build(struct hv_tx *tx, const struct hv_tuple *to, const uint8_t *hdr_l2, uint32_t l2_len, uint32_t len, uint32_t mtu,
    uint8_t ttl, uint8_t tos, uint16_t ip_id)
{
	uint32_t l3_len = to->family == 6 ? HV_IP6_LEN : HV_IP4_LEN, total = l3_len + HV_UDP_LEN + len;
	uint8_t *p = tx->hdr, *l3, *l4;

	if (l2_len < HV_ETH_LEN || l2_len > HV_ETH_LEN + HV_VLAN_LEN || len > 65535u - HV_UDP_LEN - HV_IP4_LEN || total > mtu)
		return false;
	memcpy(p, hdr_l2, l2_len);
	l3 = p + l2_len;
	l4 = l3 + l3_len;
	if (to->family == 6) {
		l3[0] = (uint8_t)(0x60u | tos >> 4);
		l3[1] = (uint8_t)(tos << 4);
		hv_put16(l3 + 2, 0);
		hv_put16(l3 + HV_IP6_PAYLOAD, HV_UDP_LEN + len);
		l3[HV_IP6_NEXT] = HV_PROTO_UDP;
		l3[HV_IP6_HOPS] = ttl;
		memcpy(l3 + HV_IP6_SRC, to->laddr, 16);
		memcpy(l3 + HV_IP6_DST, to->raddr, 16);
	} else {
		l3[0] = 0x45;
		l3[HV_IP4_TOS] = tos;
		hv_put16(l3 + HV_IP4_TOTAL, total);
		hv_put16(l3 + HV_IP4_ID, ip_id);
		hv_put16(l3 + HV_IP4_FRAG, HV_IP4_DF);
		l3[HV_IP4_TTL] = ttl;
		l3[HV_IP4_PROTO] = HV_PROTO_UDP;
		hv_put16(l3 + HV_IP4_CSUM, 0);
		memcpy(l3 + HV_IP4_SRC, to->laddr, 4);
		memcpy(l3 + HV_IP4_DST, to->raddr, 4);
	}
	memcpy(l4 + HV_UDP_SPORT, &to->lport, 2);
	memcpy(l4 + HV_UDP_DPORT, &to->rport, 2);
	hv_put16(l4 + HV_UDP_ULEN, HV_UDP_LEN + len);
	hv_put16(l4 + HV_UDP_CSUM, 0);
	tx->l3_off = (uint8_t)l2_len;
	tx->l4_off = (uint8_t)(l2_len + l3_len);
	tx->hdr_len = (uint16_t)(l2_len + l3_len + HV_UDP_LEN);
	tx->mss = 0;
	tx->payload = len;
	return true;
}
