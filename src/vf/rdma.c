/*
 * rdma.c - which RDMA device stands behind which netdev: three sources, in the order of trust. Callers: discover.c.
 *
 *   RDMA netlink  what rdma(8) shows; needs neither library nor privilege. The netdev may be the VF (mlx5) or its upper device (mana).
 *   sysfs         both classes point to the same PCI device
 *   GID tables    through the library; the only source for softvf, which the kernel knows nothing of
 */
#include <dirent.h>
#include <limits.h>
#include <rdma/rdma_netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/sys.h"
#include "vf/discover.h"
#include "vf/verbs.h"

#define GIDS 64u

int hv_ibdevs_add(struct hv_ibdevs *d, const char *name, int index, int ndev)
{
	struct hv_ibdev *v = d->v;

	if (d->n == d->cap) {
		unsigned cap = d->cap != 0 ? d->cap * 2 : 16;

		v = realloc(d->v, cap * sizeof *v);
		if (v == NULL)
			return -ENOMEM;
		d->v = v;
		d->cap = cap;
	}
	v = &d->v[d->n++];
	memset(v, 0, sizeof *v);
	memcpy(v->name, name, strnlen(name, sizeof v->name - 1));
	v->index = index;
	v->ndev = ndev;
	return 0;
}

struct attrs {
	uint32_t dev, port, ndev;
	char name[64];
};

static bool parse(const struct nlmsghdr *h, unsigned cmd, struct attrs *at)
{
	int left = (int)h->nlmsg_len - (int)NLMSG_HDRLEN;
	const uint8_t *p = (const uint8_t *)h + NLMSG_HDRLEN;
	bool has_dev = false;

	memset(at, 0, sizeof *at);
	if (h->nlmsg_type != RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, cmd))
		return false;
	while (left >= (int)NLA_HDRLEN) {
		struct nlattr a;
		const uint8_t *data = p + NLA_HDRLEN;
		size_t n;

		memcpy(&a, p, sizeof a);
		if (a.nla_len < NLA_HDRLEN || a.nla_len > left)
			break;
		n = (size_t)a.nla_len - NLA_HDRLEN;
		switch (a.nla_type & NLA_TYPE_MASK) {
		case RDMA_NLDEV_ATTR_DEV_INDEX:
			if (n >= 4) {
				memcpy(&at->dev, data, 4);
				has_dev = true;
			}
			break;
		case RDMA_NLDEV_ATTR_DEV_NAME:
			memcpy(at->name, data, n < sizeof at->name - 1 ? n : sizeof at->name - 1);
			break;
		case RDMA_NLDEV_ATTR_PORT_INDEX:
			if (n >= 4)
				memcpy(&at->port, data, 4);
			break;
		case RDMA_NLDEV_ATTR_NDEV_INDEX:
			if (n >= 4)
				memcpy(&at->ndev, data, 4);
			break;
		default:
			break;
		}
		left -= (int)NLA_ALIGN(a.nla_len);
		p += NLA_ALIGN(a.nla_len);
	}
	return has_dev;
}

int hv_ibdevs_parse_dev(void *arg, const struct nlmsghdr *h)
{
	struct attrs at;

	return parse(h, RDMA_NLDEV_CMD_GET, &at) && at.name[0] != '\0' ? hv_ibdevs_add(arg, at.name, (int)at.dev, 0) : 0;
}

int hv_ibdevs_parse_port(void *arg, const struct nlmsghdr *h)
{
	struct hv_ibdevs *d = arg;
	struct attrs at;

	if (!parse(h, RDMA_NLDEV_CMD_PORT_GET, &at) || at.port != 1) /* VFs have one port */
		return 0;
	for (unsigned i = 0; i < d->n; i++) {
		if (d->v[i].index == (int)at.dev)
			d->v[i].ndev = (int)at.ndev;
	}
	return 0;
}

int hv_ibdevs_netlink(struct hv_ibdevs *d)
{
	struct {
		struct nlmsghdr h;
		struct nlattr a;
		uint32_t dev;
	} req;
	unsigned first = d->n, last;
	int r;

	memset(&req, 0, sizeof req);
	req.h.nlmsg_len = NLMSG_HDRLEN;
	req.h.nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_GET);
	r = hv_nl_dump(NETLINK_RDMA, &req.h, hv_ibdevs_parse_dev, d);
	last = d->n;
	for (unsigned i = first; r == 0 && i < last; i++) {
		memset(&req, 0, sizeof req);
		req.h.nlmsg_len = sizeof req;
		req.h.nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_PORT_GET);
		req.a.nla_len = NLA_HDRLEN + 4;
		req.a.nla_type = RDMA_NLDEV_ATTR_DEV_INDEX;
		req.dev = (uint32_t)d->v[i].index;
		r = hv_nl_dump(NETLINK_RDMA, &req.h, hv_ibdevs_parse_port, d);
		if (r == -ENODEV || r == -EINVAL) /* gone meanwhile */
			r = 0;
	}
	return r;
}

static bool device_path(char out[PATH_MAX], const char *class, const char *name)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof path, "%s/%s/device", class, name);

	return n > 0 && (size_t)n < sizeof path && realpath(path, out) != NULL;
}

/* Several netdevs on one PCI device are told apart by their port, and ours is the first. */
static bool first_port(const char *class, const char *name)
{
	char path[PATH_MAX], text[16] = "";
	int n = snprintf(path, sizeof path, "%s/%s/dev_port", class, name);
	FILE *f = n > 0 && (size_t)n < sizeof path ? fopen(path, "re") : NULL;
	bool first = true;

	if (f != NULL) {
		if (fgets(text, sizeof text, f) != NULL)
			first = atoi(text) == 0;
		fclose(f);
	}
	return first;
}

int hv_ibdevs_sysfs(struct hv_ibdevs *d, const struct hv_links *l, const int *cand, unsigned ncand, const char *net, const char *ib)
{
	char ours[PATH_MAX], theirs[PATH_MAX];
	int saved = errno, r = 0;
	struct dirent *e;
	DIR *dir;

	hv_inside_enter();
	dir = opendir(ib);
	while (dir != NULL && r == 0 && (e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.' || !device_path(theirs, ib, e->d_name))
			continue;
		for (unsigned i = 0; i < ncand && r == 0; i++) {
			const struct hv_link *k = hv_links_find(l, cand[i]);

			if (k != NULL && device_path(ours, net, k->name) && strcmp(ours, theirs) == 0 && first_port(net, k->name))
				r = hv_ibdevs_add(d, e->d_name, -1, k->ifindex);
		}
	}
	if (dir != NULL)
		closedir(dir);
	hv_inside_leave();
	errno = saved;
	return r;
}

static void gids(struct hv_ibdevs *d, struct ibv_device *dev, struct ibv_gid_entry *e)
{
	struct ibv_context *ctx = hv_verbs.ibv_open_device(dev);
	ssize_t n;

	if (ctx == NULL) {
		hv_log(HV_LOG_DEBUG, "RDMA device %s cannot be opened: errno %d", hv_verbs.ibv_get_device_name(dev), errno);
		return;
	}
	n = hv_verbs._ibv_query_gid_table(ctx, e, GIDS, 0, sizeof *e);
	for (ssize_t i = 0; i < n; i++) {
		if (e[i].port_num == 1 && e[i].ndev_ifindex != 0)
			(void)hv_ibdevs_add(d, hv_verbs.ibv_get_device_name(dev), -1, (int)e[i].ndev_ifindex);
	}
	(void)hv_verbs.ibv_close_device(ctx);
}

enum hv_vf_why hv_ibdevs_library(struct hv_ibdevs *d)
{
	struct ibv_gid_entry *e;
	struct ibv_device **list;
	int n, err = 0, saved = errno;
	enum hv_vf_why why = hv_verbs_load(&err);

	if (why != HV_VF_OK)
		return why;
	if (hv_verbs._ibv_query_gid_table == NULL)
		return HV_VF_NO_DEVICE;
	list = hv_verbs_devices(&n, &err);
	if (list == NULL)
		return hv_verbs_why(err, HV_VF_NO_DEVICE);
	e = calloc(GIDS, sizeof *e);
	hv_inside_enter();
	for (int i = 0; i < n && e != NULL; i++)
		gids(d, list[i], e);
	hv_verbs.ibv_free_device_list(list);
	hv_inside_leave();
	free(e);
	errno = saved;
	return e != NULL ? HV_VF_OK : HV_VF_NOMEM;
}
