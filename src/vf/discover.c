/*
 * discover.c - from the netdev that routes point to (eth0) to the VF below it and its RDMA device. Keeps nothing between calls; any thread, no lock.
 */
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "vf/discover.h"

static bool same_mac(const struct hv_link *a, const struct hv_link *b)
{
	return a->has_mac && b->has_mac && memcmp(a->mac, b->mac, 6) == 0;
}

static bool running(const struct hv_link *k)
{
	return (k->flags & IFF_UP) != 0 && (k->flags & IFF_RUNNING) != 0;
}

/* How well a link fits as a slave: netvsc pairs by MAC; of two, the one that carries traffic. */
static int fitness(const struct hv_link *k, const struct hv_link *up)
{
	return 2 * same_mac(k, up) + running(k);
}

unsigned hv_vf_candidates(const struct hv_links *l, int upper, int *cand, unsigned *nslaves)
{
	const struct hv_link *up = hv_links_find(l, upper);
	unsigned n = 0;

	*nslaves = 0;
	if (up == NULL)
		return 0;
	for (int want = 3; want >= 0; want--) {
		for (unsigned i = 0; i < l->n && n < HV_CAND_MAX - 1; i++) {
			if (l->v[i].master == upper && l->v[i].ifindex != upper && fitness(&l->v[i], up) == want)
				cand[n++] = l->v[i].ifindex;
		}
	}
	*nslaves = n;
	for (unsigned i = 0; i < l->n && n < HV_CAND_MAX - 1; i++) {
		const struct hv_link *k = &l->v[i];

		if (k->ifindex != upper && k->master == 0 && !k->has_addr && same_mac(k, up))
			cand[n++] = k->ifindex;
	}
	cand[n++] = upper;
	return n;
}

/* Mana's RDMA device names the upper netdev as its own: the VF is then the best slave. */
const struct hv_ibdev *hv_vf_match(const struct hv_ibdevs *d, const int *cand, unsigned ncand, unsigned nslaves, int *lower)
{
	for (unsigned i = 0; i < ncand; i++) {
		for (unsigned k = 0; k < d->n; k++) {
			if (d->v[k].ndev != cand[i])
				continue;
			*lower = i == ncand - 1 && nslaves != 0 ? cand[0] : cand[i];
			return &d->v[k];
		}
	}
	return NULL;
}

static void fill(struct hv_vf_pair *p, const struct hv_links *l, int upper, int lower, const struct hv_ibdev *ib)
{
	const struct hv_link *u = hv_links_find(l, upper), *k = hv_links_find(l, lower);

	memset(p, 0, sizeof *p);
	p->upper = upper;
	p->lower = lower;
	memcpy(p->upper_name, u->name, sizeof p->upper_name);
	memcpy(p->lower_name, k->name, sizeof p->lower_name);
	memcpy(p->mac, k->mac, 6);
	p->mtu = u->mtu < k->mtu ? u->mtu : k->mtu;
	p->running = running(k);
	p->bare = lower == upper;
	p->ibindex = -1;
	if (ib != NULL) {
		memcpy(p->ibname, ib->name, sizeof p->ibname);
		p->ibindex = ib->index;
	}
}

enum hv_vf_why hv_vf_discover(int upper, struct hv_vf_pair *pair)
{
	struct hv_links l;
	struct hv_ibdevs d = { 0 };
	const struct hv_ibdev *ib = NULL;
	int cand[HV_CAND_MAX], lower, r;
	unsigned n, nslaves;
	enum hv_vf_why why = HV_VF_NO_DEVICE;

	memset(pair, 0, sizeof *pair);
	pair->upper = pair->lower = upper;
	pair->ibindex = -1;
	r = hv_links_read(&l);
	if (r != 0) {
		hv_log(HV_LOG_DEBUG, "network devices cannot be listed: error %d", -r);
		free(l.v);
		return r == -ENOMEM ? HV_VF_NOMEM : HV_VF_OTHER;
	}
	n = hv_vf_candidates(&l, upper, cand, &nslaves);
	if (n == 0) {
		free(l.v);
		return HV_VF_NO_DEVICE;
	}
	(void)hv_ibdevs_netlink(&d); /* no RDMA in the kernel, or none that may be listed: the next source */
	ib = hv_vf_match(&d, cand, n, nslaves, &lower);
	if (ib == NULL) {
		d.n = 0;
		(void)hv_ibdevs_sysfs(&d, &l, cand, n, "/sys/class/net", "/sys/class/infiniband");
		ib = hv_vf_match(&d, cand, n, nslaves, &lower);
	}
	if (ib == NULL) {
		enum hv_vf_why w;

		d.n = 0;
		w = hv_ibdevs_library(&d);
		ib = hv_vf_match(&d, cand, n, nslaves, &lower);
		if (w != HV_VF_OK)
			why = w;
	}
	if (ib == NULL)
		lower = cand[0];
	fill(pair, &l, upper, lower, ib);
	if (ib != NULL)
		why = pair->running ? HV_VF_OK : HV_VF_NOT_RUNNING;
	free(d.v);
	free(l.v);
	return why;
}
