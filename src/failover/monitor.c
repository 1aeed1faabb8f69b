/*
 * monitor.c - link messages about one VF, through libnl-3.
 *
 * libnl is loaded when the first monitor opens, never linked: a preloaded program that accelerates nothing must not carry it. Its calls of libc's
 * socket functions run with hv_inside_*() raised, so the hooks let them through; the socket itself is made here, high up in the descriptor table.
 *
 * Whatever happened first is the cause of this epoch (one opened ring): `loss` is set once, by compare and exchange, because signals come from
 * other threads. Everything else belongs to the thread that reads.
 */
#include <dlfcn.h>
#include <errno.h>
#include <linux/if.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netlink/errno.h>
#include <netlink/handlers.h>
#include <stdlib.h>
#include <string.h>

#include "base/inside.h"
#include "base/log.h"
#include "base/sys.h"
#include "failover/internal.h"
#include "failover/monitor.h"

#define READS_MAX 256
#define RCVBUF (1 << 20)

struct nl_sock;
struct nl_msg;

static struct {
	struct nl_sock *(*socket_alloc)(void);
	void (*socket_free)(struct nl_sock *);
	int (*socket_set_fd)(struct nl_sock *, int, int);
	void (*socket_disable_seq_check)(struct nl_sock *);
	void (*socket_disable_auto_ack)(struct nl_sock *);
	int (*socket_modify_cb)(struct nl_sock *, enum nl_cb_type, enum nl_cb_kind, int (*)(struct nl_msg *, void *), void *);
	int (*socket_modify_err_cb)(struct nl_sock *, enum nl_cb_kind, int (*)(struct sockaddr_nl *, struct nlmsgerr *, void *), void *);
	int (*socket_add_membership)(struct nl_sock *, int);
	int (*recvmsgs_default)(struct nl_sock *);
	struct nlmsghdr *(*hdr)(struct nl_msg *);
	int (*send_simple)(struct nl_sock *, int, int, void *, size_t);
	struct nlattr *(*find_attr)(const struct nlmsghdr *, int, int);
	uint32_t (*get_u32)(const struct nlattr *);
} nl;

struct hv_monitor {
	struct nl_sock *sk;
	int fd;
	int upper, lower;
	bool first, had_master; /* no link message seen yet; the VF was below upper when it was opened */
	uint32_t downs;         /* carrier losses so far: tells of one that an overrun swallowed */
	int loss;               /* enum hv_loss */
};

const char *hv_vf_state_text(enum hv_vf_state s)
{
	static const char *const t[] = { "absent", "candidate", "on hold", "active", "lost" };

	return (unsigned)s < sizeof t / sizeof t[0] ? t[s] : "?";
}

const char *hv_loss_text(enum hv_loss l)
{
	static const char *const t[] = { "none", "the VF's link went down", "the VF's link is gone", "the VF left its master", "fatal device error", "port error",
		"completion channel failed", "a send did not complete", "link messages were lost" };

	return (unsigned)l < sizeof t / sizeof t[0] ? t[l] : "?";
}

static int load(const char **what)
{
	static void *lib;
	static const struct { void *to; const char *name; } syms[] = {
		{ &nl.socket_alloc, "nl_socket_alloc" }, { &nl.socket_free, "nl_socket_free" }, { &nl.socket_set_fd, "nl_socket_set_fd" },
		{ &nl.socket_disable_seq_check, "nl_socket_disable_seq_check" },
		{ &nl.socket_disable_auto_ack, "nl_socket_disable_auto_ack" }, { &nl.socket_modify_cb, "nl_socket_modify_cb" },
		{ &nl.socket_modify_err_cb, "nl_socket_modify_err_cb" }, { &nl.socket_add_membership, "nl_socket_add_membership" },
		{ &nl.recvmsgs_default, "nl_recvmsgs_default" }, { &nl.hdr, "nlmsg_hdr" }, { &nl.send_simple, "nl_send_simple" },
		{ &nl.find_attr, "nlmsg_find_attr" }, { &nl.get_u32, "nla_get_u32" },
	};

	if (lib != NULL)
		return 0;
	void *l = dlopen("libnl-3.so.200", RTLD_NOW | RTLD_LOCAL);
	if (l == NULL) {
		*what = "libnl-3.so.200";
		return -ENOENT;
	}
	for (unsigned i = 0; i < sizeof syms / sizeof syms[0]; i++) {
		void *p = dlsym(l, syms[i].name);
		if (p == NULL) {
			*what = "libnl-3 (too old)";
			dlclose(l);
			return -ENOSYS;
		}
		memcpy(syms[i].to, &p, sizeof p);
	}
	lib = l;
	return 0;
}

bool hv_monitor_signal(struct hv_monitor *m, enum hv_loss cause)
{
	int none = HV_LOSS_NONE;

	return __atomic_compare_exchange_n(&m->loss, &none, (int)cause, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static void lower_link(struct hv_monitor *m, const struct nlmsghdr *h, const struct ifinfomsg *ifi)
{
	const struct nlattr *a = nl.find_attr(h, sizeof *ifi, IFLA_MASTER), *d = nl.find_attr(h, sizeof *ifi, IFLA_CARRIER_DOWN_COUNT);
	int master = a != NULL ? (int)nl.get_u32(a) : 0;
	uint32_t downs = d != NULL ? nl.get_u32(d) : 0;

	if (m->first) {
		m->first = false;
		m->had_master = master == m->upper;
		m->downs = downs;
	}
	if ((ifi->ifi_flags & IFF_UP) == 0 || (ifi->ifi_flags & IFF_RUNNING) == 0 || downs != m->downs)
		hv_monitor_signal(m, HV_LOSS_LINK_DOWN);
	else if (m->had_master && master != m->upper)
		hv_monitor_signal(m, HV_LOSS_MASTER);
}

static int on_message(struct nl_msg *msg, void *arg)
{
	struct hv_monitor *m = arg;
	const struct nlmsghdr *h = nl.hdr(msg);
	const struct ifinfomsg *ifi = NLMSG_DATA(h);

	if (h->nlmsg_type != RTM_NEWLINK && h->nlmsg_type != RTM_DELLINK)
		return NL_OK;
	/* A bridge's "left me" is a DELLINK too, of family AF_BRIDGE: it is not about the device. */
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof *ifi) || ifi->ifi_family != AF_UNSPEC)
		return NL_OK;
	if (ifi->ifi_index == m->lower) {
		if (h->nlmsg_type == RTM_DELLINK)
			hv_monitor_signal(m, HV_LOSS_LINK_GONE);
		else
			lower_link(m, h, ifi);
	} else if (ifi->ifi_index == m->upper && h->nlmsg_type == RTM_DELLINK) {
		hv_monitor_signal(m, HV_LOSS_MASTER);
	}
	return NL_OK;
}

/* The answer to our question about a link that isn't there. */
static int on_error(struct sockaddr_nl *who, struct nlmsgerr *e, void *arg)
{
	(void)who;
	if (e->error == -ENODEV)
		hv_monitor_signal(arg, HV_LOSS_LINK_GONE);
	else if (e->error != 0)
		hv_monitor_signal(arg, HV_LOSS_OVERRUN);
	return NL_SKIP;
}

/* The present state of the VF's link: the answer comes in order with the notifications. */
static int resync(struct hv_monitor *m)
{
	struct ifinfomsg q;

	memset(&q, 0, sizeof q);
	q.ifi_index = m->lower;
	int r = nl.send_simple(m->sk, RTM_GETLINK, 0, &q, sizeof q);
	return r < 0 ? -EIO : 0;
}

enum hv_loss hv_monitor_read(struct hv_monitor *m)
{
	bool overrun = false;

	hv_inside_enter();
	for (int i = 0; i < READS_MAX; i++) {
		int r = nl.recvmsgs_default(m->sk);
		if (r == -NLE_NOMEM) { /* ENOBUFS: messages were lost */
			overrun = true;
		} else if (r == -NLE_AGAIN) {
			if (!overrun)
				break;
			/* Not earlier: a socket with messages waiting stays congested, and the answer would be lost like the rest. */
			overrun = false;
			if (resync(m) < 0)
				hv_monitor_signal(m, HV_LOSS_OVERRUN);
		} else if (r < 0 && r != -NLE_INTR && r != -NLE_DUMP_INTR) {
			hv_monitor_signal(m, HV_LOSS_OVERRUN);
			break;
		}
	}
	if (overrun) /* more than we can read: what the VF does meanwhile, nobody knows */
		hv_monitor_signal(m, HV_LOSS_OVERRUN);
	hv_inside_leave();
	return (enum hv_loss)__atomic_load_n(&m->loss, __ATOMIC_ACQUIRE);
}

int hv_monitor_fd(const struct hv_monitor *m) { return m->fd; }

void hv_monitor_close(struct hv_monitor *m)
{
	if (m == NULL)
		return;
	hv_inside_enter();
	if (m->sk != NULL)
		nl.socket_free(m->sk); /* closes the descriptor that it was given */
	hv_inside_leave();
	free(m);
}

int hv_monitor_open(struct hv_monitor **out, int upper, int lower, const char **what)
{
	struct hv_monitor *m = calloc(1, sizeof *m);
	const char *dummy;
	int r;

	*out = NULL;
	if (what == NULL)
		what = &dummy;
	*what = "memory";
	if (m == NULL)
		return -ENOMEM;
	m->upper = upper;
	m->lower = lower;
	m->first = true;
	hv_inside_enter();
	r = load(what);
	if (r < 0)
		goto fail;
	*what = "netlink";
	m->sk = nl.socket_alloc();
	r = m->sk != NULL ? hv_sys_high(hv_sys_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE)) : -ENOMEM;
	if (r < 0)
		goto fail;
	m->fd = r;
	struct sockaddr_nl sa = { .nl_family = AF_NETLINK };
	hv_sys_setint(m->fd, SOL_SOCKET, SO_RCVBUFFORCE, RCVBUF);
	r = hv_sys_bind(m->fd, &sa, sizeof sa);
	if (r < 0 || nl.socket_set_fd(m->sk, NETLINK_ROUTE, m->fd) < 0) {
		hv_sys_close(m->fd);
		r = r < 0 ? r : -EIO;
		goto fail;
	}
	nl.socket_disable_seq_check(m->sk);
	nl.socket_disable_auto_ack(m->sk); /* an answer is answer enough */
	r = -EIO;
	if (nl.socket_modify_cb(m->sk, NL_CB_VALID, NL_CB_CUSTOM, on_message, m) < 0 || nl.socket_modify_err_cb(m->sk, NL_CB_CUSTOM, on_error, m) < 0 ||
	    nl.socket_add_membership(m->sk, RTNLGRP_LINK) < 0 || resync(m) < 0)
		goto fail;
	hv_inside_leave();
	/* The kernel answers at once: had_master is known now, and a VF that is down is noticed. */
	hv_monitor_read(m);
	*what = "";
	*out = m;
	return 0;
fail:
	hv_inside_leave();
	hv_monitor_close(m);
	return r;
}
