/*
 * flow.c - steering rules: which received packets go to the ring's queue instead of the kernel. Owns hv_vf.flows, the list
 * of what is to be destroyed at the end: ring lock. Making a rule takes no lock and touches nothing that others see, because several threads promote
 * at a time and a device may take milliseconds for it; the data path doesn't look at rules.
 *
 * Only few shapes of masks are used (5-tuple; local address and port; local port; for each family), because devices and softvf hold one table per shape.
 */
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "vf/internal.h"

#define PRIO_CONNECTED 0 /* lower value wins */
#define PRIO_BOUND 1

static bool all_zero(const uint8_t *p, size_t n)
{
	while (n != 0 && *p == 0) {
		p++;
		n--;
	}
	return n == 0;
}

static void append(union hv_vf_rule *r, const void *spec, size_t size)
{
	memcpy(r->buf + r->attr.size, spec, size); /* specs follow unaligned */
	r->attr.size = (uint16_t)(r->attr.size + size);
	r->attr.num_of_specs++;
}

static void append_eth(union hv_vf_rule *r, const uint8_t mac[6])
{
	struct ibv_flow_spec_eth e = { .type = IBV_FLOW_SPEC_ETH, .size = sizeof e };

	memcpy(e.val.dst_mac, mac, 6);
	memset(e.mask.dst_mac, 0xff, 6);
	append(r, &e, sizeof e);
}

static void append_ip4(union hv_vf_rule *r, const struct hv_tuple *t, bool local, bool remote)
{
	struct ibv_flow_spec_ipv4 s = { .type = IBV_FLOW_SPEC_IPV4, .size = sizeof s };

	if (local) {
		memcpy(&s.val.dst_ip, t->laddr, 4);
		s.mask.dst_ip = 0xffffffffu;
	}
	if (remote) {
		memcpy(&s.val.src_ip, t->raddr, 4);
		s.mask.src_ip = 0xffffffffu;
	}
	append(r, &s, sizeof s);
}

static void append_ip6(union hv_vf_rule *r, const struct hv_tuple *t, bool local, bool remote)
{
	struct ibv_flow_spec_ipv6 s = { .type = IBV_FLOW_SPEC_IPV6, .size = sizeof s };

	if (local) {
		memcpy(s.val.dst_ip, t->laddr, 16);
		memset(s.mask.dst_ip, 0xff, 16);
	}
	if (remote) {
		memcpy(s.val.src_ip, t->raddr, 16);
		memset(s.mask.src_ip, 0xff, 16);
	}
	append(r, &s, sizeof s);
}

size_t hv_vf_rule(union hv_vf_rule *r, const struct hv_tuple *t, const uint8_t mac[6])
{
	struct ibv_flow_spec_tcp_udp l4 = { .type = t->proto == 6 ? IBV_FLOW_SPEC_TCP : IBV_FLOW_SPEC_UDP, .size = sizeof l4 };
	bool connected = t->proto == 6 || t->rport != 0, local = !all_zero(t->laddr, sizeof t->laddr);

	memset(r, 0, sizeof *r);
	r->attr.type = IBV_FLOW_ATTR_NORMAL;
	r->attr.size = sizeof r->attr;
	r->attr.port = 1;
	r->attr.priority = connected ? PRIO_CONNECTED : PRIO_BOUND;
	append_eth(r, mac);
	if (t->family == 4)
		append_ip4(r, t, local, connected);
	else
		append_ip6(r, t, local, connected);
	l4.val.dst_port = t->lport;
	l4.mask.dst_port = 0xffff;
	if (connected) {
		l4.val.src_port = t->rport;
		l4.mask.src_port = 0xffff;
	}
	append(r, &l4, sizeof l4);
	return r->attr.size;
}

static struct ibv_flow *create(struct hv_vf *vf, const struct hv_tuple *t, enum hv_vf_why *why, int *errp)
{
	union hv_vf_rule r;
	struct ibv_flow *f;
	int saved = errno;

	(void)hv_vf_rule(&r, t, vf->pair.mac);
	hv_inside_enter();
	errno = 0;
	f = ibv_create_flow(vf->qp, &r.attr);
	hv_inside_leave();
	*why = HV_VF_OK;
	if (f == NULL) {
		*errp = errno != 0 ? errno : EIO;
		*why = hv_verbs_why(*errp, HV_VF_NO_FLOW);
		if (*why == HV_VF_MEMLOCK) /* rules aren't locked memory: the table is full */
			*why = HV_VF_NO_FLOW;
	}
	errno = saved;
	return f;
}

/* A rule that no packet can match: addresses reserved for documentation (RFC 5737), discard port. */
enum hv_vf_why hv_vf_trial_flow(struct hv_vf *vf, int *errp)
{
	static const struct hv_tuple t = { .family = 4, .proto = 6, .lport = 0x0900, .rport = 0x0900,
		.laddr = { 192, 0, 2, 1 }, .raddr = { 192, 0, 2, 2 } };
	enum hv_vf_why why;
	struct ibv_flow *f = create(vf, &t, &why, errp);

	if (f != NULL) {
		hv_inside_enter();
		(void)ibv_destroy_flow(f);
		hv_inside_leave();
	}
	return why;
}

enum hv_vf_why hv_vf_flow_add(struct hv_vf *vf, const struct hv_tuple *t, struct hv_vf_flow **out, int *errp)
{
	struct hv_vf_flow *f = malloc(sizeof *f);
	enum hv_vf_why why;

	*out = NULL;
	if (f == NULL) {
		*errp = ENOMEM;
		return HV_VF_NOMEM;
	}
	f->flow = create(vf, t, &why, errp);
	if (f->flow == NULL) {
		free(f);
		return why;
	}
	f->next = NULL;
	f->prev = NULL;
	f->later = false;
	*out = f;
	return HV_VF_OK;
}

void hv_vf_flow_keep(struct hv_vf *vf, struct hv_vf_flow *f)
{
	f->next = vf->flows;
	f->prev = &vf->flows;
	if (f->next != NULL)
		f->next->prev = &f->next;
	vf->flows = f;
}

void hv_vf_flow_del(struct hv_vf *vf, struct hv_vf_flow *f)
{
	int saved = errno, r;

	(void)vf;
	if (f->prev != NULL)
		*f->prev = f->next;
	if (f->next != NULL)
		f->next->prev = f->prev;
	hv_inside_enter();
	r = ibv_destroy_flow(f->flow);
	hv_inside_leave();
	if (r != 0) /* the device is gone and its rules with it */
		hv_log(HV_LOG_DEBUG, "flow rule not destroyed: error %d", r);
	free(f);
	errno = saved;
}

void hv_vf_flow_later(struct hv_vf *vf, struct hv_vf_flow *f)
{
	f->later = true;
	vf->flows_later++;
}

void hv_vf_flow_sweep(struct hv_vf *vf)
{
	for (struct hv_vf_flow *f = vf->flows, *next; f != NULL && vf->flows_later != 0; f = next) {
		next = f->next;
		if (f->later) {
			vf->flows_later--;
			hv_vf_flow_del(vf, f);
		}
	}
}
