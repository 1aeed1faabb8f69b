/*
 * setup.c - what the hand-off needs once per process: privileges, drop filter, guard, raw sockets; fork; texts and counters.
 *
 * hv_g belongs to the process that opened it: a forked child must not keep the guard of its parent alive, nor change its map. Only the engine calls
 * in, serialised.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <linux/tcp.h>
#include <string.h>

#include "base/log.h"
#include "base/sys.h"
#include "failover/internal.h"
#include "failover/route.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

struct hv_handoff_state hv_g = { .drop_fd = -1, .map_fd = -1, .link_fd = -1, .listen_fd = { -1, -1 }, .raw_fd = { -1, -1 } };
struct hv_move_counters hv_moves;

static const struct { const char *text; bool permanent; } whys[] = {
	[HV_MOVE_OK] = { "ok", false },
	[HV_MOVE_MPTCP] = { "Multipath TCP", true },
	[HV_MOVE_ULP] = { "an upper layer protocol (kernel TLS) is attached", true },
	[HV_MOVE_OWN_FILTER] = { "the program has attached a socket filter", true },
	[HV_MOVE_USEC_TS] = { "microsecond TCP timestamps", true },
	[HV_MOVE_REPAIR_IN_USE] = { "the program uses TCP_REPAIR itself", true },
	[HV_MOVE_MD5] = { "signed segments (TCP-MD5, TCP-AO)", true },
	[HV_MOVE_NO_TS_OR_OPT] = { "an IP or TCP option that cannot be carried over", true },
	[HV_MOVE_FAMILY] = { "not TCP over IPv4 or IPv6 in this network namespace", true },
	[HV_MOVE_EPERM] = { "CAP_NET_ADMIN is missing", true },
	[HV_MOVE_STATE] = { "the connection is not in plain ESTABLISHED state", false },
	[HV_MOVE_URGENT] = { "urgent data is pending", false },
	[HV_MOVE_OOO] = { "out-of-order data is held by the kernel", false },
	[HV_MOVE_RECOVERY] = { "the kernel is recovering from loss", false },
	[HV_MOVE_TOO_MUCH] = { "too much data is queued", false },
	[HV_MOVE_SYSCALL] = { "a system call failed", false },
};

const char *hv_move_why_text(enum hv_move_why why) { return (unsigned)why < sizeof whys / sizeof whys[0] ? whys[why].text : "?"; }
bool hv_move_why_permanent(enum hv_move_why why) { return (unsigned)why < sizeof whys / sizeof whys[0] && whys[why].permanent; }
const struct hv_move_counters *hv_move_counters(void) { return &hv_moves; }

const char *hv_handoff_guard_kind(void)
{
	return !hv_handoff_open() ? "none" : hv_g.kind == HV_GUARD_SK_LOOKUP ? "sk_lookup" : hv_g.kind == HV_GUARD_SOCKET ? "socket" : "none";
}

static void drop_all(void)
{
	hv_fd_drop(&hv_g.link_fd); /* first: the guard is off before its parts go */
	hv_fd_drop(&hv_g.map_fd);
	for (int i = 0; i < 2; i++) {
		hv_fd_drop(&hv_g.listen_fd[i]);
		hv_fd_drop(&hv_g.raw_fd[i]);
	}
	hv_fd_drop(&hv_g.drop_fd);
	hv_g.kind = HV_GUARD_NONE;
	__atomic_store_n(&hv_g.pid, 0, __ATOMIC_RELAXED);
}

void hv_handoff_child(void)
{
	hv_guard_forked();
	drop_all();
	hv_route_child();
	hv_g.barrier_us = 0;
}

/* TCP_REPAIR on a socket of ours tells whether it is allowed on the program's. */
static int try_repair(void)
{
	int fd = hv_sys_high(hv_sys_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
	uint64_t netns = 0;
	socklen_t l = sizeof netns;

	if (fd < 0)
		return fd;
	int r = hv_sys_setint(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);
	if (hv_sys_getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &netns, &l) < 0)
		netns = 0;
	__atomic_store_n(&hv_g.netns, netns, __ATOMIC_RELAXED);
	hv_sys_close(fd);
	return r;
}

/* Third number of a "min default max" sysctl. */
static uint32_t sysctl_max(const char *path, uint32_t def)
{
	char b[128];
	uint64_t v = 0;
	int field = 0;
	int fd = hv_sys_high((int)HV_SYS(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0, 0, 0));

	if (fd < 0)
		return def;
	ssize_t n = hv_sys_read(fd, b, sizeof b);
	hv_sys_close(fd);
	for (ssize_t i = 0; i < n && v < 1u << 30; i++) {
		if (b[i] >= '0' && b[i] <= '9') {
			if (field == 2)
				v = v * 10 + (uint64_t)(b[i] - '0');
		} else {
			field++;
		}
	}
	return v != 0 ? (uint32_t)(v < 1u << 30 ? v : 1u << 30) : def;
}

int hv_handoff_init(int guard_mode, const char **what)
{
	const char *dummy;
	int pid = hv_sys_getpid(), r;

	if (what == NULL)
		what = &dummy;
	*what = "";
	if (hv_g.pid == pid)
		return 0;
	if (hv_g.pid != 0)
		hv_handoff_child();
	__atomic_store_n(&hv_g.eperm, false, __ATOMIC_RELAXED);
	r = try_repair();
	if (r < 0) {
		*what = r == -EPERM ? "CAP_NET_ADMIN" : "TCP_REPAIR";
		__atomic_store_n(&hv_g.eperm, r == -EPERM, __ATOMIC_RELAXED);
		return r;
	}
	r = hv_g.raw_fd[0] = hv_raw_open(AF_INET);
	if (r < 0) {
		*what = r == -EPERM ? "CAP_NET_RAW" : "raw socket";
		goto fail;
	}
	r = hv_g.raw_fd[1] = hv_raw_open(AF_INET6);
	if (r < 0 && r != -EAFNOSUPPORT) {
		*what = "raw IPv6 socket";
		goto fail;
	}
	hv_g.rmem_max = sysctl_max("/proc/sys/net/ipv4/tcp_rmem", 4u << 20);
	hv_g.wmem_max = sysctl_max("/proc/sys/net/ipv4/tcp_wmem", 4u << 20);
	hv_g.drop_fd = hv_drop_load();
	if (hv_g.drop_fd < 0)
		hv_log(HV_LOG_DEBUG, "hand-off: no eBPF socket filter (error %d), using a classic one", -hv_g.drop_fd);
	r = hv_guard_open(guard_mode, what);
	if (r < 0)
		goto fail;
	__atomic_store_n(&hv_g.pid, pid, __ATOMIC_RELEASE);
	return 0;
fail:
	drop_all();
	return r;
}

void hv_handoff_fini(void)
{
	if (hv_g.pid == 0)
		return;
	if (hv_g.pid == hv_sys_getpid())
		hv_guard_tick(0, true);
	hv_handoff_child();
}

bool hv_handoff_tick(uint64_t now_us) { return hv_guard_tick(now_us, false); }

int hv_handoff_fds(int *fds, int n)
{
	bool open = hv_handoff_open();
	const int all[] = { hv_route_fd(), open ? hv_g.drop_fd : -1, open ? hv_g.map_fd : -1, open ? hv_g.link_fd : -1, open ? hv_g.listen_fd[0] : -1,
		open ? hv_g.listen_fd[1] : -1, open ? hv_g.raw_fd[0] : -1, open ? hv_g.raw_fd[1] : -1 };
	int k = 0;

	for (unsigned i = 0; i < sizeof all / sizeof all[0]; i++) {
		if (all[i] < 0)
			continue;
		if (k < n)
			fds[k] = all[i];
		k++;
	}
	return k;
}

void hv_barrier(void)
{
	uint64_t t = hv_now_us();

	/* One RCU grace period: every softirq that began before it is over. Not for nohz_full machines: there we wait. */
	if (HV_SYS(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0, 0, 0, 0) < 0) {
		struct timespec ts = { 0, HV_GRACE_US * 1000L };
		HV_SYS(SYS_nanosleep, &ts, NULL, 0, 0, 0, 0);
	}
	__atomic_store_n(&hv_g.barrier_us, t, __ATOMIC_RELEASE);
}

socklen_t hv_sa_from(union hv_sa *a, const struct hv_tuple *t, int domain, bool local)
{
	const uint8_t *addr = local ? t->laddr : t->raddr;
	uint16_t port = local ? t->lport : t->rport;

	memset(a, 0, sizeof *a);
	if (domain == AF_INET) {
		a->in.sin_family = AF_INET;
		a->in.sin_port = port;
		memcpy(&a->in.sin_addr, addr, 4);
		return sizeof a->in;
	}
	a->in6.sin6_family = AF_INET6;
	a->in6.sin6_port = port;
	if (t->family == 6) {
		memcpy(&a->in6.sin6_addr, addr, 16);
		a->in6.sin6_scope_id = t->scope;
	} else {
		a->in6.sin6_addr.s6_addr[10] = a->in6.sin6_addr.s6_addr[11] = 0xff;
		memcpy(&a->in6.sin6_addr.s6_addr[12], addr, 4);
	}
	return sizeof a->in6;
}

void hv_park_forget(struct hv_park *pk)
{
	if (pk->guard_sock != 0) {
		hv_sys_close(pk->guard_sock - 1);
		pk->guard_sock = 0;
	}
	if (pk->guarded)
		hv_guard_remove(&pk->tuple, pk->unhashed_us);
	pk->guarded = false;
	hv_guard_tick(hv_now_us(), false);
}
