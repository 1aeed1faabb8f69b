/*
 * sv_wire_steer.c - the XDP program of a wire and its rules.
 *
 * Control path only; everything runs under ctl. The program is attached natively (generic XDP loses super-packets and reorders)
 * through a bpf_link, so that it goes away with the process whatever happens. A rule is one element of a hash map; its class
 * (mask and priority) is counted, and a change of the set of classes is written to the idle half of the program's
 * configuration, then made active by one store: no frame can miss a rule that stays.
 *
 * As long as all rules are for one QP, frames come without its number in front: the number would be one more cache line for both
 * ends to pass on. The first rule for another QP ends that for good: the program starts to write numbers, a grace period makes
 * sure that none of its older runs is still busy, and what the RX ring holds by then is the first QP's whatever is in front of it.
 */
#include <errno.h>
#include <linux/if_link.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include "softvf/sv_wire.h"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wpointer-arith"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Woverlength-strings"
#include "softvf/sv_steer.lskel.h"
#pragma GCC diagnostic pop

struct sv_cls {
	unsigned rules;
	uint32_t prio;
	int l3;
	union sv_key6 mask;
};

struct sv_steer {
	struct sv_skel *skel;
	struct sv_cls cls[SV_NCLASS];
	uint32_t first; /* the QP of the first rule */
	bool meta;      /* frames have QP numbers in front */
};

struct sv_wire_rule {
	struct sv_wire_rule *next;
	int slot;
	union sv_key6 key;
};

static int map_op(int cmd, int fd, const void *key, const void *val, uint64_t flags)
{
	union bpf_attr a;

	memset(&a, 0, sizeof a);
	a.map_fd = (__u32)fd;
	a.key = (uintptr_t)key;
	a.value = (uintptr_t)val;
	a.flags = flags;
	return skel_bpf(cmd, &a);
}

static void key4(union sv_key4 *o, const union sv_key6 *k)
{
	memset(o, 0, sizeof *o);
	memcpy(o, k, 16); /* dmac .. vlan have the same places */
	memcpy(&o->f.sip, k->f.sip, 4);
	memcpy(&o->f.dip, k->f.dip, 4);
	o->f.sport = k->f.sport;
	o->f.dport = k->f.dport;
	o->f.proto = k->f.proto;
	o->f.slot = k->f.slot;
}

static void publish(struct sv_steer *s)
{
	uint32_t active = s->skel->bss->active & 1;
	struct sv_steer_conf *c = &s->skel->bss->conf[active ^ 1];
	int order[SV_NCLASS], n = 0, i, k;
	union sv_key4 slot;

	for (i = 0; i < (int)SV_NCLASS; i++) {
		if (s->cls[i].rules == 0)
			continue;
		for (k = n++; k > 0 && s->cls[order[k - 1]].prio > s->cls[i].prio; k--)
			order[k] = order[k - 1];
		order[k] = i;
	}
	memset(c, 0, sizeof *c);
	for (k = 0; k < n; k++) {
		const struct sv_cls *cls = &s->cls[order[k]];

		c->c[k].l3 = (__u32)cls->l3;
		c->c[k].slot = (__u32)order[k];
		c->mask6[k] = cls->mask;
		key4(&c->c[k].mask4, &cls->mask);
		memset(&slot, 0, sizeof slot);
		slot.f.slot = (__u8)order[k];
		c->c[k].slot4 = slot.q[3];
	}
	c->n = (__u32)n;
	c->meta = s->meta;
	__atomic_store_n(&s->skel->bss->active, active ^ 1, __ATOMIC_RELEASE);
}

/* The rules have changed: what the program remembers is void. */
static void forget(struct sv_steer *s)
{
	uint32_t next = s->skel->bss->gen + 1;

	__atomic_store_n(&s->skel->bss->gen, next != 0 ? next : 1, __ATOMIC_RELEASE);
}

/* A run of an XDP program is an RCU read-side section: MEMBARRIER_CMD_GLOBAL waits for one. */
static bool grace(void) { return HV_SYS(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0, 0, 0, 0) >= 0; }

/* Before a rule for qp is added. ctl held. */
static int meet_qp(struct sv_wire *w, uint32_t qp)
{
	struct sv_steer *s = w->steer;

	if (s->first == 0) {
		s->first = qp;
		if (!s->meta) {
			sv_lock(&w->rx_lock);
			w->rx_solo = qp;
			sv_unlock(&w->rx_lock);
		}
	}
	if (s->meta || qp == s->first)
		return 0;
	s->meta = true;
	publish(s);
	forget(s); /* that there were no numbers is remembered, too */
	if (!grace()) {
		s->meta = false;
		publish(s);
		forget(s);
		return -EIO;
	}
	sv_lock(&w->rx_lock);
	w->rx_solo_end = __atomic_load_n(w->rx_prod, __ATOMIC_ACQUIRE);
	w->rx_solo_ends = true;
	sv_unlock(&w->rx_lock);
	return 0;
}

int sv_steer_attach(struct sv_wire *w)
{
	struct sv_steer *s = calloc(1, sizeof *s);
	struct bpf_map_desc *m;
	union bpf_attr a;
	uint32_t q = w->queue;
	size_t i;
	int r;

	if (s == NULL)
		return -ENOMEM;
	w->steer = s;
	w->link_fd = -1;
	w->rx_solo = 0;
	w->rx_solo_ends = false;
	r = (int)HV_SYS(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0, 0, 0, 0);
	s->meta = r < 0 || !(r & MEMBARRIER_CMD_GLOBAL);
	s->skel = sv_skel__open();
	if (s->skel == NULL)
		return -ENOMEM;
	r = sv_skel__load(s->skel);
	if (r < 0)
		return r;
	forget(s);
	m = (struct bpf_map_desc *)(void *)&s->skel->maps;
	for (i = 0; i < sizeof s->skel->maps / sizeof *m; i++) /* out of the way of the program's numbers */
		m[i].map_fd = hv_sys_high(m[i].map_fd);
	s->skel->progs.steer.prog_fd = hv_sys_high(s->skel->progs.steer.prog_fd);
	r = map_op(BPF_MAP_UPDATE_ELEM, s->skel->maps.xsks.map_fd, &q, &w->xsk_fd, 0);
	if (r < 0)
		return r;
	memset(&a, 0, sizeof a);
	a.link_create.prog_fd = (__u32)s->skel->progs.steer.prog_fd;
	a.link_create.target_ifindex = (__u32)w->link.ifindex;
	a.link_create.attach_type = BPF_XDP;
	a.link_create.flags = XDP_FLAGS_DRV_MODE;
	w->link_fd = hv_sys_high(skel_bpf(BPF_LINK_CREATE, &a));
	if (w->link_fd < 0)
		return w->link_fd == -EEXIST ? -EBUSY : w->link_fd;
	return 0;
}

void sv_steer_detach(struct sv_wire *w)
{
	struct sv_steer *s = w->steer;

	if (s == NULL)
		return;
	if (w->link_fd >= 0)
		hv_sys_close(w->link_fd);
	w->link_fd = -1;
	if (s->skel != NULL)
		sv_skel__destroy(s->skel);
	free(s);
	w->steer = NULL;
}

int sv_rule_add(struct sv_wire *w, const struct sv_match *m, uint32_t prio, uint32_t qp, struct sv_wire_rule **out)
{
	struct sv_wire_rule *rule = calloc(1, sizeof *rule);
	struct sv_steer *s;
	union sv_key4 k4;
	int slot = -1, idle = -1, i, r;

	if (rule == NULL)
		return -ENOMEM;
	pthread_mutex_lock(&w->ctl);
	s = w->steer;
	r = sv_dead(w) ? -EIO : s == NULL ? -EINVAL : 0;
	if (r < 0)
		goto out;
	for (i = 0; i < (int)SV_NCLASS; i++) {
		const struct sv_cls *c = &s->cls[i];

		if (c->rules == 0)
			idle = idle < 0 ? i : idle;
		else if (c->prio == prio && c->l3 == m->l3 && memcmp(&c->mask, &m->mask, sizeof m->mask) == 0)
			slot = i;
	}
	r = slot < 0 && idle < 0 ? -ENOSPC : meet_qp(w, qp);
	if (r < 0)
		goto out;
	if (slot < 0) {
		slot = idle;
		s->cls[slot].prio = prio;
		s->cls[slot].l3 = m->l3;
		s->cls[slot].mask = m->mask;
	}
	for (i = 0; i < 7; i++)
		rule->key.q[i] = m->val.q[i] & m->mask.q[i];
	rule->key.f.slot = (uint8_t)slot;
	rule->slot = slot;
	key4(&k4, &rule->key);
	if (m->l3 == 6)
		r = map_op(BPF_MAP_UPDATE_ELEM, s->skel->maps.flows6.map_fd, &rule->key, &qp, BPF_NOEXIST);
	else
		r = map_op(BPF_MAP_UPDATE_ELEM, s->skel->maps.flows4.map_fd, &k4, &qp, BPF_NOEXIST);
	if (r == -E2BIG)
		r = -ENOSPC;
	if (r == 0 && s->cls[slot].rules++ == 0)
		publish(s);
	if (r == 0)
		forget(s);
out:
	if (r == 0) {
		rule->next = w->rules;
		w->rules = rule;
		*out = rule;
	} else {
		free(rule);
	}
	pthread_mutex_unlock(&w->ctl);
	return r;
}

void sv_rule_del(struct sv_wire *w, struct sv_wire_rule *rule)
{
	struct sv_wire_rule **p;
	struct sv_steer *s;
	union sv_key4 k4;

	pthread_mutex_lock(&w->ctl);
	s = w->steer;
	for (p = &w->rules; *p != NULL && *p != rule; p = &(*p)->next)
		;
	if (*p != NULL)
		*p = rule->next;
	if (s != NULL) {
		key4(&k4, &rule->key);
		if (s->cls[rule->slot].l3 == 6)
			(void)map_op(BPF_MAP_DELETE_ELEM, s->skel->maps.flows6.map_fd, &rule->key, NULL, 0);
		else
			(void)map_op(BPF_MAP_DELETE_ELEM, s->skel->maps.flows4.map_fd, &k4, NULL, 0);
		if (--s->cls[rule->slot].rules == 0)
			publish(s);
		forget(s);
	}
	free(rule);
	pthread_mutex_unlock(&w->ctl);
}
