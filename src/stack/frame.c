/*
 * frame.c - from a received frame to its flow.
 *
 * Pure functions on the caller's memory; the engine and tests call them. Every length is checked against the frame before it is
 * believed: this is the first code that sees octets from the network.
 */
#include "stack/frame.h"
#include "stack/wire.h"
#include "stack/frame_l3.h"

static bool parse_ip4(uint8_t *l3, uint32_t room, struct hv_frame *f)
{
	uint32_t ihl, total;

	if (room < HV_IP4_LEN)
		return false;
	ihl = (uint32_t)(l3[0] & 15u) * 4u;
	total = hv_get16(l3 + HV_IP4_TOTAL);
	if (l3[0] >> 4 != 4 || ihl < HV_IP4_LEN || total < ihl || total > room)
		return false;
	if ((hv_get16(l3 + HV_IP4_FRAG) & HV_IP4_MF_OFF) != 0)
		return false;
	f->tuple.family = 4;
	f->tuple.proto = l3[HV_IP4_PROTO];
	memcpy(f->tuple.raddr, l3 + HV_IP4_SRC, 4);
	memcpy(f->tuple.laddr, l3 + HV_IP4_DST, 4);
	f->l3_len = total;
	f->l4 = l3 + ihl;
	f->l4_len = total - ihl;
	f->tos = l3[HV_IP4_TOS];
	f->ttl = l3[HV_IP4_TTL];
	return true;
}

static bool parse_ip6(uint8_t *l3, uint32_t room, struct hv_frame *f)
{
	uint32_t plen;

	if (room < HV_IP6_LEN || l3[0] >> 4 != 6)
		return false;
	plen = hv_get16(l3 + HV_IP6_PAYLOAD);
	if (plen > room - HV_IP6_LEN)
		return false; /* jumbograms have 0 here and fail the layer 4 length check */
	f->tuple.family = 6;
	f->tuple.proto = l3[HV_IP6_NEXT]; /* extension headers: not TCP or UDP, so the kernel gets it */
	memcpy(f->tuple.raddr, l3 + HV_IP6_SRC, 16);
	memcpy(f->tuple.laddr, l3 + HV_IP6_DST, 16);
	f->l3_len = HV_IP6_LEN + plen;
	f->l4 = l3 + HV_IP6_LEN;
	f->l4_len = plen;
	f->tos = (uint8_t)((l3[0] << 4) | (l3[1] >> 4));
	f->ttl = l3[HV_IP6_HOPS];
	return true;
}

bool hv_l3_parse(uint8_t *l3, uint32_t room, struct hv_frame *f)
{
	memset(&f->tuple, 0, sizeof f->tuple);
	f->l3 = l3;
	if (room == 0 || !(l3[0] >> 4 == 4 ? parse_ip4(l3, room, f) : parse_ip6(l3, room, f)))
		return false;
	if (f->tuple.proto == HV_PROTO_TCP) {
		if (f->l4_len < HV_TCP_LEN)
			return false;
	} else if (f->tuple.proto == HV_PROTO_UDP) {
		if (f->l4_len < HV_UDP_LEN)
			return false;
	} else {
		return false;
	}
	memcpy(&f->tuple.rport, f->l4, 2);
	memcpy(&f->tuple.lport, f->l4 + 2, 2);
	return true;
}

bool hv_frame_parse(uint8_t *frame, uint32_t len, struct hv_frame *f)
{
	uint32_t off = HV_ETH_LEN;
	uint16_t type;

	if (len < HV_ETH_LEN)
		return false;
	f->src_mac = frame + HV_ETH_SRC;
	f->vlan = 0;
	type = hv_get16(frame + HV_ETH_TYPE);
	if (type == HV_ETHERTYPE_VLAN || type == HV_ETHERTYPE_QINQ) {
		if (len < HV_ETH_LEN + HV_VLAN_LEN)
			return false;
		f->vlan = (uint16_t)(hv_get16(frame + HV_ETH_LEN) & 0xfffu);
		type = hv_get16(frame + HV_ETH_LEN + 2);
		off += HV_VLAN_LEN;
	}
	if (type != HV_ETHERTYPE_IP4 && type != HV_ETHERTYPE_IP6)
		return false;
	if (len == off || (frame[off] >> 4 == 4) != (type == HV_ETHERTYPE_IP4))
		return false;
	return hv_l3_parse(frame + off, len - off, f);
}

bool hv_frame_csum_ok(const struct hv_frame *f)
{
	uint32_t l4_len = f->l4_len;

	if (f->tuple.family == 4 && hv_csum(f->l3, (uint32_t)(f->l4 - f->l3), 0) != 0)
		return false;
	if (f->tuple.proto == HV_PROTO_UDP) {
		uint32_t ulen = hv_get16(f->l4 + HV_UDP_ULEN);

		if (ulen < HV_UDP_LEN || ulen > l4_len)
			return false;
		if (hv_get16(f->l4 + HV_UDP_CSUM) == 0)
			return f->tuple.family == 4; /* RFC 8200 8.1: zero means an error in IPv6 */
		l4_len = ulen;
	}
	return hv_csum(f->l4, l4_len, hv_csum_pseudo(&f->tuple, false, l4_len)) == 0;
}

uint32_t hv_tuple_hash(const struct hv_tuple *t)
{
	uint64_t a, b,
	    h = ((uint64_t)t->lport << 32 | (uint64_t)t->rport << 16 | (uint64_t)t->proto << 8 | t->family) * 0x9e3779b97f4a7c15u;
	const uint32_t half = t->family == 6 ? 2 : 1;

	for (uint32_t i = 0; i < half; i++) {
		memcpy(&a, t->laddr + 8 * i, 8); /* IPv4: the octets behind the address are zero */
		memcpy(&b, t->raddr + 8 * i, 8);
		h = (h ^ a) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
		h = (h ^ b) * 0xc4ceb9fe1a85ec53u;
		h ^= h >> 29;
	}
	return (uint32_t)(h ^ h >> 32);
}

bool hv_tuple_eq(const struct hv_tuple *a, const struct hv_tuple *b)
{
	/* a frame does not carry its scope: 0 matches any */
	return a->family == b->family && a->proto == b->proto && a->lport == b->lport && a->rport == b->rport &&
	       (a->scope == b->scope || a->scope == 0 || b->scope == 0) && memcmp(a->laddr, b->laddr, 16) == 0 &&
	       memcmp(a->raddr, b->raddr, 16) == 0;
}
