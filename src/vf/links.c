/*
 * links.c - the network devices of this namespace, from rtnetlink. Callers: discover.c.
 *
 * Raw netlink instead of a library: this runs inside of programs that may have loaded nothing, and two dumps are all there is.
 */
#include <assert.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include "base/sys.h"
#include "vf/discover.h"

#ifndef RTEXT_FILTER_SKIP_STATS
#define RTEXT_FILTER_SKIP_STATS (1 << 3)
#endif
#define BUF 32768u /* the kernel never fills more into one answer of a dump */
#define TRIES 4

int hv_nl_dump(int protocol, struct nlmsghdr *req, hv_nl_fn fn, void *arg)
{
	const struct timeval tv = { .tv_sec = 2 };
	int fd = hv_sys_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), r;
	uint8_t *buf;
	bool done = false, interrupted = false;

	if (fd < 0)
		return fd;
	buf = malloc(BUF);
	if (buf == NULL) {
		hv_sys_close(fd);
		return -ENOMEM;
	}
	(void)hv_sys_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv); /* the answer is ready when send returns */
	req->nlmsg_flags |= NLM_F_REQUEST | NLM_F_DUMP;
	r = (int)hv_sys_send(fd, req, req->nlmsg_len, 0);
	while (r >= 0 && !done) {
		ssize_t n = hv_sys_recv(fd, buf, BUF, 0);

		if (n == -EINTR)
			continue;
		if (n < 0) {
			r = (int)n;
			break;
		}
		r = n == 0 ? -EPROTO : 0;
		for (size_t off = 0; r >= 0 && off + NLMSG_HDRLEN <= (size_t)n;) {
			struct nlmsghdr *h = (struct nlmsghdr *)(void *)(buf + off);

			if (h->nlmsg_len < NLMSG_HDRLEN || h->nlmsg_len > (size_t)n - off)
				break;
			off += NLMSG_ALIGN(h->nlmsg_len);
			if (h->nlmsg_flags & NLM_F_DUMP_INTR)
				interrupted = true;
			if (h->nlmsg_type == NLMSG_DONE) {
				done = true;
				break;
			}
			if (h->nlmsg_type == NLMSG_ERROR) {
				const struct nlmsgerr *e = NLMSG_DATA(h);

				r = h->nlmsg_len >= NLMSG_LENGTH(sizeof *e) && e->error != 0 ? e->error : -EPROTO;
				break;
			}
			r = fn(arg, h);
		}
	}
	free(buf);
	hv_sys_close(fd);
	if (r >= 0 && interrupted)
		return -EAGAIN;
	return r < 0 ? r : 0;
}

const struct hv_link *hv_links_find(const struct hv_links *l, int ifindex)
{
	for (unsigned i = 0; i < l->n; i++) {
		if (l->v[i].ifindex == ifindex)
			return &l->v[i];
	}
	return NULL;
}

static struct hv_link *append(struct hv_links *l)
{
	if (l->n == l->cap) {
		unsigned cap = l->cap != 0 ? l->cap * 2 : 16;
		struct hv_link *v = realloc(l->v, cap * sizeof *v);

		if (v == NULL)
			return NULL;
		l->v = v;
		l->cap = cap;
	}
	memset(&l->v[l->n], 0, sizeof *l->v);
	return &l->v[l->n++];
}

int hv_links_parse_link(void *arg, const struct nlmsghdr *h)
{
	const struct ifinfomsg *m = NLMSG_DATA((struct nlmsghdr *)(uintptr_t)h);
	struct hv_link *k;
	int left;

	/* Bridges speak of their ports with family AF_BRIDGE in the same message types. */
	if (h->nlmsg_type != RTM_NEWLINK || h->nlmsg_len < NLMSG_LENGTH(sizeof *m) || m->ifi_family != AF_UNSPEC)
		return 0;
	k = append(arg);
	if (k == NULL)
		return -ENOMEM;
	k->ifindex = m->ifi_index;
	k->flags = m->ifi_flags;
	left = (int)IFLA_PAYLOAD(h);
	for (struct rtattr *a = IFLA_RTA(m); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		size_t n = RTA_PAYLOAD(a);
		const void *p = RTA_DATA(a);

		switch (a->rta_type) {
		case IFLA_IFNAME:
			memcpy(k->name, p, n < sizeof k->name - 1 ? n : sizeof k->name - 1);
			break;
		case IFLA_ADDRESS:
			if (n == 6) {
				memcpy(k->mac, p, 6);
				k->has_mac = true;
			}
			break;
		case IFLA_MTU:
			if (n >= 4)
				memcpy(&k->mtu, p, 4);
			break;
		case IFLA_MASTER:
			if (n >= 4)
				memcpy(&k->master, p, 4);
			break;
		default:
			break;
		}
	}
	return 0;
}

int hv_links_parse_addr(void *arg, const struct nlmsghdr *h)
{
	struct hv_links *l = arg;
	const struct ifaddrmsg *m = NLMSG_DATA((struct nlmsghdr *)(uintptr_t)h);

	if (h->nlmsg_type != RTM_NEWADDR || h->nlmsg_len < NLMSG_LENGTH(sizeof *m) || m->ifa_scope >= RT_SCOPE_LINK)
		return 0;
	for (unsigned i = 0; i < l->n; i++) {
		if (l->v[i].ifindex == (int)m->ifa_index)
			l->v[i].has_addr = true;
	}
	return 0;
}

int hv_links_read(struct hv_links *l)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg m;
		struct rtattr a;
		uint32_t mask;
	} link;
	struct {
		struct nlmsghdr h;
		struct ifaddrmsg m;
	} addr;
	int r = -EAGAIN;

	memset(l, 0, sizeof *l);
	for (int i = 0; i < TRIES && r == -EAGAIN; i++) { /* links came or went while the kernel was listing them */
		l->n = 0;
		memset(&link, 0, sizeof link);
		link.h.nlmsg_len = sizeof link;
		link.h.nlmsg_type = RTM_GETLINK;
		link.a.rta_len = RTA_LENGTH(4);
		link.a.rta_type = IFLA_EXT_MASK;
		link.mask = RTEXT_FILTER_SKIP_STATS;
		r = hv_nl_dump(NETLINK_ROUTE, &link.h, hv_links_parse_link, l);
		if (r != 0)
			continue;
		memset(&addr, 0, sizeof addr);
		addr.h.nlmsg_len = sizeof addr;
		addr.h.nlmsg_type = RTM_GETADDR;
		r = hv_nl_dump(NETLINK_ROUTE, &addr.h, hv_links_parse_addr, l);
	}
	return r;
}
