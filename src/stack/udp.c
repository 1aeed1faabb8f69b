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

/* A datagram in the store; the packet follows. size 0: go on at the beginning. */
struct rec {
	uint32_t l3_len;
	uint32_t size; /* of record and packet, multiple of 8 */
};

#define STORE_SPARE 32768u /* beyond SO_RCVBUF: the one datagram that an empty queue always takes, and what is left over where it wraps */

uint32_t hv_udp_store_size(uint32_t rcvbuf)
{
	uint32_t n = rcvbuf > (1u << 30) ? 1u << 30 : rcvbuf;

	return (n + STORE_SPARE + 4095u) & ~4095u; /* no datagram is charged less than it takes there */
}

uint32_t hv_udp_charge(uint32_t l3_len)
{
	const uint32_t skb = 256, room = 64 + HV_ETH_LEN, shared = 320;
	uint32_t need = ((room + l3_len + 63u) & ~63u) + shared, size = 512;

	if (need > 4096)
		return skb + ((need + 4095u) & ~4095u);
	while (size < need)
		size *= 2;
	return skb + size;
}

/* Where a record of n octets goes, or NULL. Head and tail are equal only when the store is empty, and then both are 0. */
static struct rec *store_room(struct hv_udp *u, uint32_t n)
{
	uint32_t t = u->store_tail;

	if (u->store == NULL)
		return NULL;
	if (t >= u->store_head) {
		if (n <= u->store_cap - t)
			return (struct rec *)(void *)(u->store + t);
		if (n >= u->store_head) /* strictly: the tail must not catch up with the head */
			return NULL;
		if (u->store_cap - t >= sizeof(struct rec))
			((struct rec *)(void *)(u->store + t))->size = 0;
		u->store_tail = 0;
		return (struct rec *)(void *)u->store;
	}
	return n < u->store_head - t ? (struct rec *)(void *)(u->store + t) : NULL;
}

static struct rec *store_front(const struct hv_udp *u)
{
	struct rec *r = (struct rec *)(void *)(u->store + u->store_head);

	if (u->store_cap - u->store_head < sizeof *r || r->size == 0)
		r = (struct rec *)(void *)u->store;
	return r;
}

static bool store_put(struct hv_udp *u, const uint8_t *l3, uint32_t l3_len)
{
	uint32_t n = ((uint32_t)sizeof(struct rec) + l3_len + 7u) & ~7u;
	struct rec *r = store_room(u, n);

	if (r == NULL)
		return false;
	r->l3_len = l3_len;
	r->size = n;
	memcpy(r + 1, l3, l3_len);
	u->store_tail += n;
	return true;
}

enum hv_udp_in hv_udp_input(struct hv_udp *u, struct hv_buf *buf, uint8_t *l3, uint32_t l3_len, bool csum_ok)
{
	struct hv_frame f;
	uint32_t ulen, charge;
	bool store;

	if (!hv_l3_parse(l3, l3_len, &f) || !ours(u, &f.tuple))
		return HV_UDP_DROP;
	ulen = hv_get16(f.l4 + HV_UDP_ULEN);
	if (ulen < HV_UDP_LEN || ulen > f.l4_len)
		return HV_UDP_DROP;
	/* A device calls a datagram without checksum good or unknown; over IPv6 there is no such thing (RFC 8200 8.1). */
	if (f.tuple.family == 6 && hv_get16(f.l4 + HV_UDP_CSUM) == 0)
		return HV_UDP_DROP;
	if (!csum_ok && !hv_frame_csum_ok(&f))
		return HV_UDP_DROP;
	charge = hv_udp_charge(f.l3_len);
	store = u->slots >= HV_UDP_SLOTS || u->count != u->slots;
	if ((u->octets + charge > u->rcvbuf && u->count != 0) || (store && !store_put(u, l3, f.l3_len))) {
		u->drops++;
		return HV_UDP_DROP;
	}
	if (!store) {
		buf->meta = (uint32_t)(l3 - buf->base);
		buf->data = f.l4 + HV_UDP_LEN;
		buf->len = ulen - HV_UDP_LEN;
		buf->seq = f.l3_len;
		buf->next = NULL;
		*u->tail = buf;
		u->tail = &buf->next;
		u->slots++;
	}
	u->count++;
	u->octets += charge;
	return store ? HV_UDP_COPIED : HV_UDP_KEPT;
}

bool hv_udp_peek(const struct hv_udp *u, struct hv_dgram *d)
{
	struct hv_buf *b = u->head;
	struct rec *r = b == NULL && u->count != 0 ? store_front(u) : NULL;
	struct hv_frame f;

	if (u->count == 0)
		return false;
	if (!(b != NULL ? hv_l3_parse(b->base + b->meta, b->seq, &f) : hv_l3_parse((uint8_t *)(r + 1), r->l3_len, &f)))
		return false; /* cannot be: it was parsed on arrival */
	d->l3 = f.l3;
	d->l3_len = f.l3_len;
	d->data = f.l4 + HV_UDP_LEN;
	d->len = hv_get16(f.l4 + HV_UDP_ULEN) - HV_UDP_LEN;
	d->tuple = f.tuple;
	d->tos = f.tos;
	d->ttl = f.ttl;
	return true;
}

void hv_udp_pop(struct hv_udp *u, struct hv_env *env)
{
	struct hv_buf *b = u->head;
	uint32_t len;

	if (u->count == 0)
		return;
	if (b != NULL) {
		len = b->seq;
		u->head = b->next;
		if (u->head == NULL)
			u->tail = &u->head;
		u->slots--;
		b->next = env->free_rx;
		env->free_rx = b;
		env->n_free_rx++;
	} else {
		struct rec *r = store_front(u);
		len = r->l3_len;
		u->store_head = (uint32_t)((uint8_t *)r - u->store) + r->size;
		if (u->store_head == u->store_tail) /* low again: a queue that is short most of the time touches few pages */
			u->store_head = u->store_tail = 0;
	}
	u->count--;
	u->octets -= hv_udp_charge(len);
}

void hv_udp_release(struct hv_udp *u, struct hv_env *env)
{
	while (u->count != 0)
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
