/*
 * labdp.c - hvaccel-lab-dp: loads the lab's BPF data path (labdp.bpf.c), attaches it and moves it from one path to the other.
 *
 * Called by tools/hvaccel-lab only. Nothing is pinned: the programs live as long as the devices they are attached to, the map as long as
 * the programs, and later calls find the map by its id. Deleting the namespaces therefore deletes everything.
 * Talks to the kernel by bpf(2) and raw rtnetlink, so it needs no library.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include "labdp.h"
#include "labdp.insns.h"

static void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void die(const char *fmt, ...)
{
	va_list ap;

	fputs("hvaccel-lab: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static int bpf(int cmd, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

static int map_create(void)
{
	union bpf_attr a = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = LABDP_SLOTS };
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	int fd;

	memcpy(a.map_name, "hv_lab_dp", sizeof("hv_lab_dp"));
	setrlimit(RLIMIT_MEMLOCK, &unlimited);	/* before 5.11 maps count as locked memory */
	fd = bpf(BPF_MAP_CREATE, &a);
	if (fd < 0)
		die("cannot create a BPF map: %s (needs root and CONFIG_BPF_SYSCALL)", strerror(errno));
	return fd;
}

static int map_open(const char *id)
{
	union bpf_attr a = { 0 };
	char *end;
	unsigned long n;
	int fd;

	errno = 0;
	n = strtoul(id, &end, 10);
	if (errno || end == id || *end || n > UINT32_MAX)
		die("'%s' is no map id", id);
	a.map_id = (uint32_t)n;
	fd = bpf(BPF_MAP_GET_FD_BY_ID, &a);
	if (fd < 0)
		die("the lab's data path is gone (map %s: %s): run hvaccel-lab up again", id, strerror(errno));
	return fd;
}

static uint32_t map_id(int fd)
{
	struct bpf_map_info info = { 0 };
	union bpf_attr a = { 0 };

	a.info.bpf_fd = (uint32_t)fd;
	a.info.info_len = sizeof(info);
	a.info.info = (uintptr_t)&info;
	if (bpf(BPF_OBJ_GET_INFO_BY_FD, &a))
		die("cannot query a BPF map: %s", strerror(errno));
	return info.id;
}

static void slot_set(int fd, uint32_t slot, uint64_t value)
{
	union bpf_attr a = { 0 };

	a.map_fd = (uint32_t)fd;
	a.key = (uintptr_t)&slot;
	a.value = (uintptr_t)&value;
	if (bpf(BPF_MAP_UPDATE_ELEM, &a))
		die("cannot write the BPF map: %s", strerror(errno));
}

static uint64_t slot_get(int fd, uint32_t slot)
{
	union bpf_attr a = { 0 };
	uint64_t value = 0;

	a.map_fd = (uint32_t)fd;
	a.key = (uintptr_t)&slot;
	a.value = (uintptr_t)&value;
	if (bpf(BPF_MAP_LOOKUP_ELEM, &a))
		die("cannot read the BPF map: %s", strerror(errno));
	return value;
}

static int prog_load(const char *name, const unsigned long long *words, size_t bytes, int map)
{
	struct bpf_insn insns[256];
	static char log[65536];
	union bpf_attr a = { 0 };
	size_t n = bytes / sizeof(*insns);
	int fd;

	_Static_assert(sizeof(struct bpf_insn) == sizeof(unsigned long long), "an instruction is one word");
	if (n > sizeof(insns) / sizeof(*insns))
		die("program %s is too long", name);
	memcpy(insns, words, bytes);
	for (size_t i = 0; i < n; i++)
		if (insns[i].code == (BPF_LD | BPF_IMM | BPF_DW) && insns[i].src_reg == BPF_PSEUDO_MAP_FD)
			insns[i].imm = map;
	a.prog_type = BPF_PROG_TYPE_SCHED_CLS;
	a.insns = (uintptr_t)insns;
	a.insn_cnt = (uint32_t)n;
	a.license = (uintptr_t)"GPL";
	snprintf(a.prog_name, sizeof(a.prog_name), "%s", name);
	fd = bpf(BPF_PROG_LOAD, &a);
	if (fd < 0) {
		int err = errno;

		a.log_buf = (uintptr_t)log;
		a.log_size = sizeof(log);
		a.log_level = 1;
		bpf(BPF_PROG_LOAD, &a);
		die("the kernel refuses BPF program %s: %s\n%s", name, strerror(err), log);
	}
	return fd;
}
#define PROG(name, map) prog_load("hv_lab_" #name, labdp_##name, sizeof(labdp_##name), map)

/* The calling thread works in that namespace from now on. */
static void enter(const char *lab, const char *which)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/run/netns/hv-%s-%s", lab, which);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("no namespace hv-%s-%s: %s", lab, which, strerror(errno));
	if (setns(fd, CLONE_NEWNET))
		die("cannot enter namespace hv-%s-%s: %s (needs root)", lab, which, strerror(errno));
	close(fd);
}

static uint32_t ifindex(const char *dev)
{
	uint32_t i = if_nametoindex(dev);

	if (!i)
		die("no device %s: %s", dev, strerror(errno));
	return i;
}

struct request {
	struct nlmsghdr nh;
	struct tcmsg tc;
	char attrs[256];
};

static struct rtattr *attr_put(struct nlmsghdr *nh, uint16_t type, const void *data, size_t len)
{
	struct rtattr *a = (void *)((char *)nh + NLMSG_ALIGN(nh->nlmsg_len));

	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(len);
	if (len)
		memcpy(RTA_DATA(a), data, len);
	nh->nlmsg_len = (uint32_t)(NLMSG_ALIGN(nh->nlmsg_len) + RTA_ALIGN(a->rta_len));
	return a;
}

static int rtnl(struct request *r)
{
	struct { struct nlmsghdr nh; struct nlmsgerr err; char rest[512]; } answer;
	int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	ssize_t n;
	int err;

	if (s < 0)
		return -errno;
	r->nh.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	if (send(s, r, r->nh.nlmsg_len, 0) < 0) {
		err = -errno;
	} else {
		n = recv(s, &answer, sizeof(answer), 0);
		if (n < 0)
			err = -errno;
		else if (n < (ssize_t)NLMSG_LENGTH(sizeof(answer.err)) || answer.nh.nlmsg_type != NLMSG_ERROR)
			err = -EPROTO;
		else
			err = answer.err.error;
	}
	close(s);
	return err;
}

/* tcx (6.6): the program without a qdisc and a classifier chain around it, which would cost as much again. */
static bool attach_tcx(const char *dev, int prog)
{
	enum { TCX_INGRESS = 46 };	/* younger than the oldest headers we build with */
	union bpf_attr a = { 0 };

	a.target_fd = ifindex(dev);	/* in a union with target_ifindex */
	a.attach_bpf_fd = (uint32_t)prog;
	a.attach_type = TCX_INGRESS;
	return !bpf(BPF_PROG_ATTACH, &a);
}

/* cls_bpf in direct-action mode on the clsact qdisc: works on every kernel since 4.5. */
static void attach(const char *dev, bool egress, int prog)
{
	struct request q = {
		.nh = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct tcmsg)), .nlmsg_type = RTM_NEWQDISC, .nlmsg_flags = NLM_F_CREATE | NLM_F_EXCL },
		.tc = { .tcm_family = AF_UNSPEC, .tcm_ifindex = (int)ifindex(dev), .tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0), .tcm_parent = TC_H_CLSACT },
	}, f = {
		.nh = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct tcmsg)), .nlmsg_type = RTM_NEWTFILTER, .nlmsg_flags = NLM_F_CREATE | NLM_F_EXCL },
		.tc = { .tcm_family = AF_UNSPEC, .tcm_ifindex = q.tc.tcm_ifindex, .tcm_handle = 1,
			.tcm_parent = TC_H_MAKE(TC_H_CLSACT, egress ? TC_H_MIN_EGRESS : TC_H_MIN_INGRESS),
			/* the last priority: filters of the program under test come first */
			.tcm_info = TC_H_MAKE(0xfff0u << 16, htons(ETH_P_ALL)) },
	};
	uint32_t fd = (uint32_t)prog, flags = TCA_BPF_FLAG_ACT_DIRECT;
	struct rtattr *options;
	int err;

	/* On egress, tcx would run before what the program under test attaches by tc; real netvsc chooses the path after it. */
	if (!egress && attach_tcx(dev, prog))
		return;
	attr_put(&q.nh, TCA_KIND, "clsact", sizeof("clsact"));
	err = rtnl(&q);
	if (err && err != -EEXIST)
		die("cannot add clsact to %s: %s (the kernel needs CONFIG_NET_SCH_INGRESS)", dev, strerror(-err));
	attr_put(&f.nh, TCA_KIND, "bpf", sizeof("bpf"));
	options = attr_put(&f.nh, TCA_OPTIONS, NULL, 0);
	attr_put(&f.nh, TCA_BPF_FD, &fd, sizeof(fd));
	attr_put(&f.nh, TCA_BPF_NAME, "hvaccel-lab", sizeof("hvaccel-lab"));
	attr_put(&f.nh, TCA_BPF_FLAGS, &flags, sizeof(flags));
	options->rta_len = (uint16_t)((char *)&f.nh + f.nh.nlmsg_len - (char *)options);
	err = rtnl(&f);
	if (err)
		die("cannot attach the data path to %s: %s (the kernel needs CONFIG_NET_CLS_BPF and CONFIG_NET_CLS_ACT)", dev, strerror(-err));
}

/* An AF_XDP reader at the other end of the veth sees the frame as it is: checksums must be complete when it is sent. */
static void complete_checksums(const char *dev)
{
	struct ethtool_value off = { .cmd = ETHTOOL_STXCSUM, .data = 0 };
	struct ifreq ifr = { .ifr_data = (void *)&off };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", dev);
	if (s < 0 || ioctl(s, SIOCETHTOOL, &ifr))
		die("cannot switch checksum offload of %s off: %s", dev, strerror(errno));
	close(s);
}

/*
 * Carrier reaches a bridge port through a kernel worker: without waiting, the first frames would meet a port that does not forward yet.
 * Setting the flags that are set anyway takes the rtnl lock, so it returns after the worker's notifications are done.
 */
static void wait_running(const char *dev)
{
	struct ifreq ifr = { 0 };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (s < 0)
		die("cannot open a socket: %s", strerror(errno));
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", dev);
	for (int ms = 0; ; ms++) {
		if (ioctl(s, SIOCGIFFLAGS, &ifr))
			die("no device %s: %s", dev, strerror(errno));
		if (ifr.ifr_flags & IFF_RUNNING)
			break;
		if (ms == 3000)
			die("%s has no carrier after 3 s", dev);
		usleep(1000);
	}
	if (ioctl(s, SIOCSIFFLAGS, &ifr))
		die("cannot set the flags of %s: %s", dev, strerror(errno));
	close(s);
}

static bool yes(const char *s)
{
	return !strcmp(s, "yes");
}

/* init LAB master|tc SYN_ONLY QUEUES OFFLOAD: attach everything that does not depend on the VF; prints the map's id. */
static void cmd_init(char **av)
{
	bool master = !strcmp(av[1], "master");
	int map = map_create();

	slot_set(map, LABDP_SYN_ONLY, yes(av[2]));
	slot_set(map, LABDP_QUEUES, strtoul(av[3], NULL, 10));
	enter(av[0], "host");
	slot_set(map, LABDP_WIRE, ifindex("hpeer"));
	slot_set(map, LABDP_SYN, ifindex("hsyn"));
	attach("hpeer", false, PROG(wire_in, map));
	attach("hsyn", false, PROG(vm_in, map));
	if (!yes(av[4]))
		complete_checksums("hpeer");
	enter(av[0], "vm");
	slot_set(map, LABDP_VM_ETH0, ifindex("eth0"));
	attach(master ? "syn0" : "eth0", true, PROG(vm_tx, map));
	wait_running(master ? "syn0" : "eth0");
	enter(av[0], "peer");
	wait_running("eth0");
	printf("%u\n", map_id(map));
}

/* vf MAP LAB master|tc OFFLOAD: a VF was created; attach it. The data path is not moved. */
static void cmd_vf(char **av)
{
	int map = map_open(av[0]);

	enter(av[1], "host");
	attach("hvf", false, PROG(vm_in, map));
	if (!yes(av[3]))
		complete_checksums("hvf");
	slot_set(map, LABDP_VF, ifindex("hvf"));
	enter(av[1], "vm");
	if (!strcmp(av[2], "tc"))
		attach("vf0", false, PROG(vf_rx, map));
	slot_set(map, LABDP_VM_VF, ifindex("vf0"));
}

/* switch MAP LAB vf|syn: both directions at once. */
static void cmd_switch(char **av)
{
	int map = map_open(av[0]);
	bool vf = !strcmp(av[2], "vf");

	if (vf) {
		if (!slot_get(map, LABDP_VF))
			die("there is no VF to switch to: run hvaccel-lab vf-add");
		enter(av[1], "vm");
		wait_running("vf0");
	}
	slot_set(map, LABDP_ACTIVE, vf);
}

/* novf MAP: the VF is gone and the data path is synthetic. */
static void cmd_novf(char **av)
{
	int map = map_open(av[0]);

	slot_set(map, LABDP_ACTIVE, 0);
	slot_set(map, LABDP_VF, 0);
	slot_set(map, LABDP_VM_VF, 0);
}

/* show MAP */
static void cmd_show(char **av)
{
	int map = map_open(av[0]);

	puts(slot_get(map, LABDP_ACTIVE) ? "vf" : "synthetic");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int args;
		void (*run)(char **args);
	} commands[] = {
		{ "init", 5, cmd_init }, { "vf", 4, cmd_vf }, { "switch", 3, cmd_switch }, { "novf", 1, cmd_novf }, { "show", 1, cmd_show },
	};

	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (argc > 1 && !strcmp(argv[1], commands[i].name)) {
			if (argc != commands[i].args + 2)
				break;
			commands[i].run(argv + 2);
			return fflush(stdout) ? 1 : 0;
		}
	fputs("hvaccel-lab-dp: a part of hvaccel-lab, which see; not for use on its own\n", stderr);
	return 2;
}
