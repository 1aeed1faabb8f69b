/*
 * discover.h - what discover.c, links.c and rdma.c share. Control path only; nothing is kept between calls, so there is no lock.
 */
#ifndef HV_VF_DISCOVER_H
#define HV_VF_DISCOVER_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "vf/vf.h"

struct hv_link {
	int ifindex, master;
	uint32_t flags, mtu;
	uint8_t mac[6];
	bool has_mac, has_addr; /* has_addr: one beyond link scope */
	char name[16];
};
struct hv_links {
	struct hv_link *v;
	unsigned n, cap;
};

/* An RDMA device's relation to one netdev; a device may appear several times. */
struct hv_ibdev {
	char name[64];
	int index; /* RDMA nldev index, -1 unknown */
	int ndev;  /* ifindex */
};
struct hv_ibdevs {
	struct hv_ibdev *v;
	unsigned n, cap;
};

#define HV_CAND_MAX 32u

/* One dump over netlink: req is sent, fn called for each message of the answer. 0 or -errno; an interrupted dump is not repeated here (-EAGAIN). */
typedef int (*hv_nl_fn)(void *arg, const struct nlmsghdr *h);
int hv_nl_dump(int protocol, struct nlmsghdr *req, hv_nl_fn fn, void *arg);

/* links.c. The parsers take one message, arg is struct hv_links *; fit for hv_nl_dump(). */
int hv_links_parse_link(void *arg, const struct nlmsghdr *h);
int hv_links_parse_addr(void *arg, const struct nlmsghdr *h);
int hv_links_read(struct hv_links *l);                      /* 0 or -errno; free(l->v) afterwards in any case */
const struct hv_link *hv_links_find(const struct hv_links *l, int ifindex);

/* rdma.c. The list grows; 0 or -errno. Parsers: arg is struct hv_ibdevs *. */
int hv_ibdevs_add(struct hv_ibdevs *d, const char *name, int index, int ndev);
int hv_ibdevs_parse_dev(void *arg, const struct nlmsghdr *h);
int hv_ibdevs_parse_port(void *arg, const struct nlmsghdr *h); /* sets ndev of the device with that index */
int hv_ibdevs_netlink(struct hv_ibdevs *d);
/* net, ib: the class directories (tests give others). */
int hv_ibdevs_sysfs(struct hv_ibdevs *d, const struct hv_links *l, const int *cand, unsigned ncand, const char *net, const char *ib);
enum hv_vf_why hv_ibdevs_library(struct hv_ibdevs *d);

/* discover.c, pure. Candidates for the lower netdev, best first, upper itself last; returns their number, *nslaves = how many are slaves of upper. */
unsigned hv_vf_candidates(const struct hv_links *l, int upper, int *cand, unsigned *nslaves);
const struct hv_ibdev *hv_vf_match(const struct hv_ibdevs *d, const int *cand, unsigned ncand, unsigned nslaves, int *lower);

#endif
