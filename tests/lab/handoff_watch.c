/*
 * handoff_watch.c - the VF's monitor and the route look-up against a real kernel: a veth stands for the VF, a bridge for the device above it.
 *
 * Started by handoff_watch.sh in a network namespace of its own: vf0 (peer p0 in another one) is a port of eth0, a bridge with 10.98.0.1/24 and
 * fd98::1/64; the peer is 10.98.0.2 and fd98::2. Exits 0 or 1, 77 when libnl-3 is missing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/inside.h"
#include "base/sys.h"
#include "failover/monitor.h"
#include "failover/route.h"

#define die(...) do { fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); fprintf(stderr, __VA_ARGS__); fputc('\n', stderr); exit(1); } while (0)
#define check(x) do { if (!(x)) die("failed: %s", #x); } while (0)

static void ip(const char *args)
{
	char cmd[256];

	snprintf(cmd, sizeof cmd, "ip %s", args);
	if (system(cmd) != 0)
		die("%s", cmd);
}

static void mtu6(const char *dev, uint32_t mtu)
{
	char cmd[256];

	snprintf(cmd, sizeof cmd, "echo %u >/proc/sys/net/ipv6/conf/%s/mtu", mtu, dev);
	if (system(cmd) != 0)
		die("%s", cmd);
}

static int idx(const char *name)
{
	int i = (int)if_nametoindex(name);

	check(i != 0);
	return i;
}

/* Reads until a loss is seen; the bound only ends a broken test. */
static enum hv_loss wait_loss(struct hv_monitor *m)
{
	for (int i = 0; i < 2000; i++) {
		enum hv_loss l = hv_monitor_read(m);
		if (l != HV_LOSS_NONE)
			return l;
		poll(&(struct pollfd){ hv_monitor_fd(m), POLLIN, 0 }, 1, 10);
	}
	return HV_LOSS_NONE;
}

/* What came in so far says nothing bad. The marker is a change of another link, whose message comes after all of ours. */
static void healthy(struct hv_monitor *m)
{
	ip("link set lo txqueuelen 1001");
	ip("link set lo txqueuelen 1000");
	check(hv_monitor_read(m) == HV_LOSS_NONE);
}

static struct hv_monitor *watch(void)
{
	struct hv_monitor *m = NULL;
	const char *what = "";
	int r = hv_monitor_open(&m, idx("eth0"), idx("vf0"), &what);

	if (r == -ENOENT) {
		printf("skipped: %s is missing\n", what);
		exit(77);
	}
	if (r < 0)
		die("open: %d, %s", r, what);
	check(hv_monitor_fd(m) >= 64);
	check((hv_sys_fcntl(hv_monitor_fd(m), 1 /* F_GETFD */, 0) & 1) == 1);
	check(hv_inside_depth == 0);
	return m;
}

static void up(void)
{
	ip("link set vf0 master eth0 up");
	for (int i = 0; i < 2000; i++) {
		struct hv_monitor *m = watch();
		enum hv_loss l = hv_monitor_read(m);
		hv_monitor_close(m);
		if (l == HV_LOSS_NONE)
			return;
		usleep(5000);
	}
	die("vf0 does not come up");
}

static void losses(void)
{
	struct hv_monitor *m = watch();

	healthy(m);
	/* Not about the VF: other links come and go, the bridge changes. */
	ip("link add other0 type veth peer name other1");
	ip("link set other0 master eth0 up");
	ip("link del other0");
	ip("link set eth0 txqueuelen 500");
	healthy(m);
	ip("link set vf0 down");
	check(wait_loss(m) == HV_LOSS_LINK_DOWN);
	ip("link set vf0 up");
	check(hv_monitor_read(m) == HV_LOSS_LINK_DOWN); /* for the whole epoch */
	check(!hv_monitor_signal(m, HV_LOSS_TX_WATCHDOG));
	check(hv_monitor_read(m) == HV_LOSS_LINK_DOWN);
	hv_monitor_close(m);

	up();
	m = watch();
	check(hv_monitor_signal(m, HV_LOSS_DEVICE_FATAL)); /* the first one is the cause */
	check(!hv_monitor_signal(m, HV_LOSS_DEVICE_FATAL));
	ip("link set vf0 down");
	check(wait_loss(m) == HV_LOSS_DEVICE_FATAL);
	hv_monitor_close(m);

	up();
	m = watch();
	ip("link set vf0 nomaster"); /* family AF_BRIDGE says DELLINK here */
	check(wait_loss(m) == HV_LOSS_MASTER);
	hv_monitor_close(m);
	m = watch(); /* without a master from the start: that is how it is here */
	healthy(m);
	ip("link set vf0 down");
	check(wait_loss(m) == HV_LOSS_LINK_DOWN);
	hv_monitor_close(m);
	m = watch(); /* down already */
	check(hv_monitor_read(m) == HV_LOSS_LINK_DOWN);
	hv_monitor_close(m);

	up();
	m = watch();
	ip("-n \"$PEER\" link set p0 down"); /* the carrier goes */
	check(wait_loss(m) == HV_LOSS_LINK_DOWN);
	hv_monitor_close(m);
	ip("-n \"$PEER\" link set p0 up");

	/* More messages than the socket holds: a loss among them is found all the same. */
	up();
	m = watch();
	int small = 2048;
	check(hv_sys_setsockopt(hv_monitor_fd(m), SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
	for (int i = 0; i < 6; i++) {
		ip("link set eth0 txqueuelen 501");
		ip("link set eth0 txqueuelen 500");
	}
	healthy(m); /* overrun, asked again, nothing happened */
	for (int i = 0; i < 6; i++)
		ip(i % 2 == 0 ? "link set eth0 txqueuelen 501" : "link set eth0 txqueuelen 500");
	ip("link set vf0 down");
	ip("link set vf0 up");
	check(wait_loss(m) == HV_LOSS_LINK_DOWN);
	hv_monitor_close(m);

	up();
	m = watch();
	ip("link del vf0");
	enum hv_loss l = wait_loss(m);
	check(l == HV_LOSS_LINK_DOWN || l == HV_LOSS_LINK_GONE); /* the kernel says both, in this order */
	hv_monitor_close(m);
	int eth0 = idx("eth0");
	const char *what;
	check(hv_monitor_open(&m, eth0, 9999, &what) == 0); /* never there */
	check(hv_monitor_read(m) == HV_LOSS_LINK_GONE);
	hv_monitor_close(m);
}

static struct hv_tuple tuple(const char *l, const char *r)
{
	struct hv_tuple t;
	bool six = strchr(l, ':') != NULL;

	memset(&t, 0, sizeof t);
	t.family = six ? 6 : 4;
	t.proto = 6;
	t.lport = htons(1000);
	t.rport = htons(2000);
	check(inet_pton(six ? AF_INET6 : AF_INET, l, t.laddr) == 1 && inet_pton(six ? AF_INET6 : AF_INET, r, t.raddr) == 1);
	return t;
}

static void routes(void)
{
	static const uint8_t peer_mac[6] = { 2, 0, 0, 0, 0, 2 }, gw_mac[6] = { 2, 0, 0, 0, 0, 9 }, our_mac[6] = { 2, 0, 0, 0, 0, 1 };
	struct hv_route r;
	struct hv_tuple t = tuple("10.98.0.1", "10.98.0.2");

	check(hv_route_get(&t, 0, 0, &r) == 0);
	check(r.ifindex == idx("eth0") && r.mtu == 1500 && !r.local && !r.have_mac);
	check(memcmp(r.src_mac, our_mac, 6) == 0);
	ip("neigh replace 10.98.0.2 lladdr 02:00:00:00:00:02 dev eth0 nud reachable");
	check(hv_route_get(&t, 0, 0, &r) == 0 && r.have_mac && memcmp(r.dst_mac, peer_mac, 6) == 0);
	ip("neigh replace 10.98.0.2 lladdr 02:00:00:00:00:02 dev eth0 nud failed");
	check(hv_route_get(&t, 0, 0, &r) == 0 && !r.have_mac);

	t = tuple("fd98::1", "fd98::2");
	ip("neigh replace fd98::2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent");
	check(hv_route_get(&t, 0, 0, &r) == 0 && r.ifindex == idx("eth0") && r.have_mac && memcmp(r.dst_mac, peer_mac, 6) == 0);

	t = tuple("10.98.0.1", "192.0.2.1");
	check(hv_route_get(&t, 0, 0, &r) == -ENETUNREACH);
	ip("route add 192.0.2.0/24 via 10.98.0.9 mtu 1400");
	ip("neigh replace 10.98.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
	check(hv_route_get(&t, 0, 0, &r) == 0 && r.mtu == 1400 && !r.mtu_locked && r.have_mac && memcmp(r.dst_mac, gw_mac, 6) == 0);
	ip("route change 192.0.2.0/24 via 10.98.0.9 mtu lock 1400");
	check(hv_route_get(&t, 0, 0, &r) == 0 && r.mtu == 1400 && r.mtu_locked);
	ip("route add unreachable 192.0.2.1");
	check(hv_route_get(&t, 0, 0, &r) == -EHOSTUNREACH);
	ip("route del unreachable 192.0.2.1");
	t = tuple("fd98::1", "2001:db8::1");
	ip("route add 2001:db8::/64 via fd98::9 dev eth0");
	ip("neigh replace fd98::9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
	check(hv_route_get(&t, 0, 0, &r) == 0 && r.have_mac && memcmp(r.dst_mac, gw_mac, 6) == 0);
	/* As a router's advertisement would: the device's MTU for IPv6 alone. */
	uint32_t mtu = r.mtu;
	mtu6("eth0", mtu - 100);
	check(hv_route_get(&t, 0, 0, &r) == 0 && r.mtu == mtu - 100);
	mtu6("eth0", mtu);

	/* Marks and bound devices are part of the question. */
	t = tuple("10.98.0.1", "192.0.2.1");
	ip("link add d0 type veth peer name d1");
	ip("link set d1 up");
	ip("link set d0 up");
	ip("rule add fwmark 7 table 100");
	ip("route add 192.0.2.0/24 dev d0 table 100");
	check(hv_route_get(&t, 0, 0, &r) == 0 && r.ifindex == idx("eth0"));
	check(hv_route_get(&t, 7, 0, &r) == 0 && r.ifindex == idx("d0"));
	check(hv_route_get(&t, 0, idx("d0"), &r) == 0 && r.ifindex == idx("d0"));

	t = tuple("10.98.0.1", "10.98.0.1");
	check(hv_route_get(&t, 0, 0, &r) == 0 && r.local);
	t = tuple("127.0.0.1", "127.0.0.1");
	check(hv_route_get(&t, 0, 0, &r) == 0 && r.local);
	t = tuple("fd98::1", "fd98::1");
	check(hv_route_get(&t, 0, 0, &r) == 0 && r.local);
	check(hv_route_fd() >= 64);
}

int main(void)
{
	routes();
	losses();
	return 0;
}
