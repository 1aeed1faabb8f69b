/* Discovery without a kernel: netlink messages as they come, made byte by byte; the choice among links; sysfs in a directory of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <rdma/rdma_netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vf/discover.h"

/* ---- messages ---- */
static union {
	struct nlmsghdr h;
	uint8_t b[4096];
} msg;

static void begin(uint16_t type, const void *body, size_t len)
{
	memset(&msg, 0, sizeof msg);
	msg.h.nlmsg_type = type;
	memcpy(msg.b + NLMSG_HDRLEN, body, len);
	msg.h.nlmsg_len = (uint32_t)(NLMSG_HDRLEN + NLMSG_ALIGN(len));
}

static void attr(uint16_t type, const void *p, size_t len)
{
	struct nlattr a = { .nla_len = (uint16_t)(NLA_HDRLEN + len), .nla_type = type };

	memcpy(msg.b + msg.h.nlmsg_len, &a, sizeof a);
	memcpy(msg.b + msg.h.nlmsg_len + NLA_HDRLEN, p, len);
	msg.h.nlmsg_len += (uint32_t)NLA_ALIGN(NLA_HDRLEN + len);
}

static void link_msg(int family, int index, unsigned flags, const char *name, int master, uint8_t mac5)
{
	struct ifinfomsg m = { .ifi_family = (unsigned char)family, .ifi_index = index, .ifi_flags = flags };
	uint8_t mac[6] = { 0, 13, 58, 0, 0, mac5 }, junk[64] = { 0 };
	uint32_t mtu = 1500, up = (uint32_t)master;

	begin(RTM_NEWLINK, &m, sizeof m);
	attr(IFLA_IFNAME, name, strlen(name) + 1);
	attr(IFLA_TXQLEN, &mtu, 4);
	attr(IFLA_ADDRESS, mac, 6);
	attr(IFLA_AF_SPEC | NLA_F_NESTED, junk, sizeof junk);
	attr(IFLA_MTU, &mtu, 4);
	if (master != 0)
		attr(IFLA_MASTER, &up, 4);
}

static void addr_msg(int index, uint8_t scope)
{
	struct ifaddrmsg m = { .ifa_family = AF_INET, .ifa_index = (uint32_t)index, .ifa_scope = scope };

	begin(RTM_NEWADDR, &m, sizeof m);
}

static void add_link(struct hv_links *l, int index, unsigned flags, const char *name, int master, uint8_t mac5)
{
	link_msg(AF_UNSPEC, index, flags, name, master, mac5);
	assert_int_equal(hv_links_parse_link(l, &msg.h), 0);
}

#define RUN (IFF_UP | IFF_RUNNING)

static void parse_links(void **state)
{
	struct hv_links l = { 0 };

	(void)state;
	add_link(&l, 7, RUN, "eth0", 0, 2);
	add_link(&l, 9, IFF_UP, "enP53091s1np0", 7, 2);
	link_msg(AF_BRIDGE, 9, RUN, "vf0", 7, 2); /* a bridge speaking of its port isn't a link */
	assert_int_equal(hv_links_parse_link(&l, &msg.h), 0);
	assert_int_equal(l.n, 2);
	assert_string_equal(l.v[1].name, "enP53091s1np0");
	assert_int_equal(l.v[1].master, 7);
	assert_int_equal(l.v[1].mtu, 1500);
	assert_int_equal(l.v[1].flags, IFF_UP);
	assert_true(l.v[1].has_mac && l.v[1].mac[5] == 2);
	addr_msg(9, RT_SCOPE_LINK); /* older kernels give the VF fe80:: */
	hv_links_parse_addr(&l, &msg.h);
	assert_false(l.v[1].has_addr);
	addr_msg(7, RT_SCOPE_UNIVERSE);
	hv_links_parse_addr(&l, &msg.h);
	assert_true(l.v[0].has_addr);
	assert_ptr_equal(hv_links_find(&l, 9), &l.v[1]);
	assert_null(hv_links_find(&l, 8));
	free(l.v);
}

/* Whatever a message is cut to, nothing beyond its end is read (run under the address sanitizer as well). */
static void parse_cut(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 2; kind++) {
		uint32_t len;

		if (kind == 0) {
			link_msg(AF_UNSPEC, 3, RUN, "a_name_that_is_longer_than_any", 2, 5);
		} else {
			begin(RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_GET), "", 0);
			attr(RDMA_NLDEV_ATTR_DEV_INDEX, "\1\0\0\0", 4);
			attr(RDMA_NLDEV_ATTR_DEV_NAME, "mlx5_0", 7);
		}
		len = msg.h.nlmsg_len;
		for (uint32_t n = NLMSG_HDRLEN; n <= len; n++) {
			struct hv_links l = { 0 };
			struct hv_ibdevs d = { 0 };
			struct nlmsghdr *h = malloc(n); /* exactly as long as it says */

			assert_non_null(h);
			memcpy(h, msg.b, n);
			h->nlmsg_len = n;
			if (kind == 0)
				hv_links_parse_link(&l, h);
			else
				hv_ibdevs_parse_dev(&d, h);
			assert_true(l.n <= 1 && d.n <= 1);
			if (l.n == 1)
				assert_true(strnlen(l.v[0].name, sizeof l.v[0].name) < sizeof l.v[0].name);
			free(l.v);
			free(d.v);
			free(h);
		}
	}
}

static void parse_rdma(void **state)
{
	struct hv_ibdevs d = { 0 };
	uint32_t v;

	(void)state;
	for (uint32_t i = 0; i < 20; i++) {
		char name[16];

		snprintf(name, sizeof name, "mlx5_%u", i);
		v = i + 100;
		begin(RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_GET), "", 0);
		attr(RDMA_NLDEV_ATTR_DEV_INDEX, &v, 4);
		attr(RDMA_NLDEV_ATTR_FW_VERSION, "14.25.8362", 11);
		attr(RDMA_NLDEV_ATTR_DEV_NAME, name, strlen(name) + 1);
		assert_int_equal(hv_ibdevs_parse_dev(&d, &msg.h), 0);
	}
	assert_int_equal(d.n, 20);
	for (uint32_t port = 1; port <= 2; port++) {
		begin(RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_PORT_GET), "", 0);
		v = 117;
		attr(RDMA_NLDEV_ATTR_DEV_INDEX, &v, 4);
		attr(RDMA_NLDEV_ATTR_PORT_INDEX, &port, 4);
		v = 8 + port;
		attr(RDMA_NLDEV_ATTR_NDEV_INDEX, &v, 4);
		attr(RDMA_NLDEV_ATTR_NDEV_NAME, "vf", 3);
		assert_int_equal(hv_ibdevs_parse_port(&d, &msg.h), 0);
	}
	assert_string_equal(d.v[17].name, "mlx5_17");
	assert_int_equal(d.v[17].index, 117);
	assert_int_equal(d.v[17].ndev, 9); /* only the first port */
	assert_int_equal(d.v[16].ndev, 0);
	assert_int_equal(hv_ibdevs_parse_dev(&d, &msg.h), 0); /* another command's message */
	assert_int_equal(d.n, 20);
	free(d.v);
}

/* ---- choice ---- */
static void choose(const struct hv_links *l, const struct hv_ibdevs *d, int upper, int lower, const char *ib)
{
	int cand[HV_CAND_MAX], got = -1;
	unsigned ns, n = hv_vf_candidates(l, upper, cand, &ns);
	const struct hv_ibdev *e = hv_vf_match(d, cand, n, ns, &got);

	assert_true(n >= 1 && cand[n - 1] == upper);
	if (ib == NULL) {
		assert_null(e);
		return;
	}
	assert_non_null(e);
	assert_string_equal(e->name, ib);
	assert_int_equal(got, lower);
}

static void choices(void **state)
{
	struct hv_links l = { 0 };
	struct hv_ibdevs d = { 0 };
	int cand[HV_CAND_MAX];
	unsigned ns;

	(void)state;
	/* eth0 with two slaves, one of them the VF; eth1 with its VF by MAC; eth2 bare; a VLAN with eth2's MAC; docker's bridge */
	add_link(&l, 2, RUN, "eth0", 0, 2);
	add_link(&l, 3, RUN, "syn0", 2, 9);
	add_link(&l, 4, RUN, "vf0", 2, 2);
	add_link(&l, 5, RUN, "eth1", 0, 20);
	add_link(&l, 6, RUN, "vf1", 0, 20);
	add_link(&l, 7, RUN, "eth2", 0, 30);
	add_link(&l, 8, RUN, "eth2.5", 0, 30);
	add_link(&l, 9, RUN, "docker0", 0, 40);
	add_link(&l, 10, RUN, "veth1", 9, 41);
	add_link(&l, 11, RUN, "eth1.7", 0, 20);
	hv_ibdevs_add(&d, "ib_vf0", 1, 4);
	hv_ibdevs_add(&d, "ib_vf1", 2, 6);
	hv_ibdevs_add(&d, "ib_eth2", 3, 7);
	l.v[9].has_addr = true; /* eth1.7 */
	choose(&l, &d, 2, 4, "ib_vf0");
	choose(&l, &d, 5, 6, "ib_vf1");
	choose(&l, &d, 7, 7, "ib_eth2"); /* not eth2.5, although it looks like a partner */
	choose(&l, &d, 9, 0, NULL);
	choose(&l, &d, 4, 4, "ib_vf0"); /* asked for the VF itself */
	assert_int_equal(hv_vf_candidates(&l, 5, cand, &ns), 2); /* vf1 and itself: what has an address of its own is no VF */
	assert_int_equal(ns, 0);
	assert_int_equal(hv_vf_candidates(&l, 99, cand, &ns), 0);
	/* the slave with the upper's MAC comes first, of those the one that runs */
	assert_int_equal(hv_vf_candidates(&l, 2, cand, &ns), 3);
	assert_int_equal(ns, 2);
	assert_int_equal(cand[0], 4);
	/* mana names the upper netdev */
	d.v[0].ndev = 2;
	choose(&l, &d, 2, 4, "ib_vf0");
	/* more links than candidates */
	for (int i = 0; i < 100; i++)
		add_link(&l, 100 + i, RUN, "many", 2, 2);
	assert_int_equal(hv_vf_candidates(&l, 2, cand, &ns), HV_CAND_MAX);
	assert_int_equal(cand[HV_CAND_MAX - 1], 2);
	free(l.v);
	free(d.v);
}

/* ---- sysfs ---- */
static char root[] = "/tmp/hv_vf_find.XXXXXX";

static void dir(const char *path)
{
	char p[256];

	snprintf(p, sizeof p, "%s/%s", root, path);
	assert_int_equal(mkdir(p, 0700), 0);
}

static void point(const char *from, const char *to)
{
	char p[256], q[256];

	snprintf(p, sizeof p, "%s/%s", root, from);
	snprintf(q, sizeof q, "%s/%s", root, to);
	assert_int_equal(symlink(q, p), 0);
}

static void sysfs(void **state)
{
	struct hv_links l = { 0 };
	struct hv_ibdevs d = { 0 };
	const int cand[] = { 4, 5, 2 };
	char net[256], ib[256], cmd[300];

	(void)state;
	assert_non_null(mkdtemp(root));
	dir("pci1");
	dir("pci2");
	dir("net");
	dir("ib");
	dir("net/eth0");
	dir("net/vf0");
	dir("net/vf0b");
	dir("ib/mlx5_0");
	dir("ib/mlx5_1");
	point("net/vf0/device", "pci1");
	point("net/vf0b/device", "pci1"); /* second port of the same device */
	point("ib/mlx5_0/device", "pci2");
	point("ib/mlx5_1/device", "pci1");
	snprintf(cmd, sizeof cmd, "%s/net/vf0b/dev_port", root);
	FILE *f = fopen(cmd, "w");
	assert_non_null(f);
	fputs("1\n", f);
	fclose(f);
	add_link(&l, 2, RUN, "eth0", 0, 2);
	add_link(&l, 4, RUN, "vf0", 2, 2);
	add_link(&l, 5, RUN, "vf0b", 2, 3);
	snprintf(net, sizeof net, "%s/net", root);
	snprintf(ib, sizeof ib, "%s/ib", root);
	assert_int_equal(hv_ibdevs_sysfs(&d, &l, cand, 3, net, ib), 0);
	assert_int_equal(d.n, 1);
	assert_string_equal(d.v[0].name, "mlx5_1");
	assert_int_equal(d.v[0].ndev, 4);
	assert_int_equal(d.v[0].index, -1);
	assert_int_equal(hv_ibdevs_sysfs(&d, &l, cand, 3, net, "/nonexistent"), 0);
	assert_int_equal(d.n, 1);
	snprintf(cmd, sizeof cmd, "rm -r %s", root);
	assert_int_equal(system(cmd), 0);
	free(l.v);
	free(d.v);
}

/* The running kernel's own answer: the loopback device is there and is found again by its index. */
static void live(void **state)
{
	struct hv_links l;
	const struct hv_link *k;

	(void)state;
	assert_int_equal(hv_links_read(&l), 0);
	k = hv_links_find(&l, (int)if_nametoindex("lo"));
	assert_non_null(k);
	assert_string_equal(k->name, "lo");
	assert_true(k->mtu >= 1280);
	free(l.v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parse_links), cmocka_unit_test(parse_cut), cmocka_unit_test(parse_rdma), cmocka_unit_test(choices), cmocka_unit_test(sysfs),
		cmocka_unit_test(live),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
