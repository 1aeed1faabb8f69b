/*
 * sv_verbs_flow.c - ibv_create_flow(): verbs specifications become one rule of the wire.
 *
 * What a mask asks for and XDP steering can't look at is refused, never ignored. Control path, no lock of its own.
 */
#include <endian.h>
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include "softvf/sv_verbs.h"

/* A field that an earlier specification set to something else can't match both. */
static int set(void *val, void *mask, const void *v, const void *m, size_t n)
{
	uint8_t *ov = val, *om = mask;
	const uint8_t *iv = v, *im = m;

	for (; n > 0; n--, ov++, om++, iv++, im++) {
		if ((*ov ^ *iv) & *om & *im)
			return EINVAL;
		*ov |= *iv & *im;
		*om |= *im;
	}
	return 0;
}

static int set16(void *val, void *mask, uint16_t host)
{
	uint16_t v = htobe16(host), m = 0xffff;

	return set(val, mask, &v, &m, 2);
}

static int set8(uint8_t *val, uint8_t *mask, uint8_t v)
{
	uint8_t m = 0xff;

	return set(val, mask, &v, &m, 1);
}

#define SET(field, v, m) do { if (set(&o->val.f.field, &o->mask.f.field, (v), (m), sizeof o->val.f.field)) return EINVAL; } while (0)

static int spec_one(struct sv_match *o, const struct ibv_flow_spec *s)
{
	switch (s->hdr.type) {
	case IBV_FLOW_SPEC_ETH:
		if (s->hdr.size != sizeof s->eth)
			return EINVAL;
		SET(dmac, s->eth.val.dst_mac, s->eth.mask.dst_mac);
		SET(smac, s->eth.val.src_mac, s->eth.mask.src_mac);
		SET(etype, &s->eth.val.ether_type, &s->eth.mask.ether_type);
		SET(vlan, &s->eth.val.vlan_tag, &s->eth.mask.vlan_tag);
		return 0;
	case IBV_FLOW_SPEC_IPV4:
	case IBV_FLOW_SPEC_IPV4_EXT: { /* both start with the same two addresses */
		struct ibv_flow_ipv4_ext_filter v = { 0 }, m = { 0 };

		if (s->hdr.type == IBV_FLOW_SPEC_IPV4 ? s->hdr.size != sizeof s->ipv4 : s->hdr.size != sizeof s->ipv4_ext)
			return EINVAL;
		if (s->hdr.type == IBV_FLOW_SPEC_IPV4) {
			v.src_ip = s->ipv4.val.src_ip;
			v.dst_ip = s->ipv4.val.dst_ip;
			m.src_ip = s->ipv4.mask.src_ip;
			m.dst_ip = s->ipv4.mask.dst_ip;
		} else {
			v = s->ipv4_ext.val;
			m = s->ipv4_ext.mask;
		}
		if (m.tos != 0 || m.ttl != 0 || m.flags != 0)
			return EOPNOTSUPP;
		if (o->l3 == 6)
			return EINVAL;
		o->l3 = 4;
		if (set(o->val.f.sip, o->mask.f.sip, &v.src_ip, &m.src_ip, 4) || set(o->val.f.dip, o->mask.f.dip, &v.dst_ip, &m.dst_ip, 4))
			return EINVAL;
		SET(proto, &v.proto, &m.proto);
		return set16(&o->val.f.etype, &o->mask.f.etype, 0x0800);
	}
	case IBV_FLOW_SPEC_IPV6:
		if (s->hdr.size != sizeof s->ipv6 || o->l3 == 4)
			return EINVAL;
		if (s->ipv6.mask.flow_label != 0 || s->ipv6.mask.traffic_class != 0 || s->ipv6.mask.hop_limit != 0)
			return EOPNOTSUPP;
		o->l3 = 6;
		SET(sip, s->ipv6.val.src_ip, s->ipv6.mask.src_ip);
		SET(dip, s->ipv6.val.dst_ip, s->ipv6.mask.dst_ip);
		SET(proto, &s->ipv6.val.next_hdr, &s->ipv6.mask.next_hdr);
		return set16(&o->val.f.etype, &o->mask.f.etype, 0x86dd);
	case IBV_FLOW_SPEC_TCP:
	case IBV_FLOW_SPEC_UDP:
		if (s->hdr.size != sizeof s->tcp_udp)
			return EINVAL;
		SET(sport, &s->tcp_udp.val.src_port, &s->tcp_udp.mask.src_port);
		SET(dport, &s->tcp_udp.val.dst_port, &s->tcp_udp.mask.dst_port);
		return set8(&o->val.f.proto, &o->mask.f.proto, s->hdr.type == IBV_FLOW_SPEC_TCP ? 6 : 17);
	default:
		return EOPNOTSUPP; /* tunnels, actions, counters, ... */
	}
}

static int parse(struct sv_match *o, const struct ibv_flow_attr *a)
{
	const uint8_t *p = (const uint8_t *)(a + 1), *end = (const uint8_t *)a + a->size;
	unsigned i;
	int r;

	memset(o, 0, sizeof *o);
	for (i = 0; i < a->num_of_specs; i++) {
		struct ibv_flow_spec s; /* they follow each other unaligned */

		memset(&s, 0, sizeof s);
		if (p + sizeof s.hdr > end)
			return EINVAL;
		memcpy(&s.hdr, p, sizeof s.hdr);
		if (s.hdr.size < sizeof s.hdr || s.hdr.size > sizeof s || p + s.hdr.size > end)
			return EINVAL;
		memcpy(&s, p, s.hdr.size);
		r = spec_one(o, &s);
		if (r != 0)
			return r;
		p += s.hdr.size;
	}
	return 0;
}

struct ibv_flow *sv_create_flow(struct ibv_qp *qp, struct ibv_flow_attr *a)
{
	struct sv_qp *q = (struct sv_qp *)(void *)qp;
	struct sv_match m;
	struct sv_flow *f = NULL;
	int r = 0;

	if (sv_dead(q->w))
		r = EIO;
	else if (!sv_capable(CAP_NET_RAW))
		r = EPERM;
	else if (a->type != IBV_FLOW_ATTR_NORMAL || a->comp_mask != 0 || a->flags != 0)
		r = EOPNOTSUPP;
	else if (a->port != 1 || a->num_of_specs == 0 || a->size < sizeof *a)
		r = EINVAL;
	if (r == 0)
		r = parse(&m, a);
	if (r == 0) {
		f = calloc(1, sizeof *f);
		r = f == NULL ? ENOMEM : 0;
	}
	if (r == 0) {
		f->flow.context = qp->context;
		f->ctx = q->ctx;
		r = -sv_rule_add(q->w, &m, a->priority, qp->qp_num, &f->rule);
	}
	if (r != 0) {
		free(f);
		errno = r;
		return NULL;
	}
	return &f->flow;
}

int sv_destroy_flow(struct ibv_flow *flow)
{
	struct sv_flow *f = (struct sv_flow *)(void *)flow;

	sv_rule_del(f->ctx->w, f->rule);
	free(f);
	return 0;
}
