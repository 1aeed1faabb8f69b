/*
 * sv_wire_link.c - netdevs: list, state, and the monitor thread of a wire.
 *
 * AF_XDP never reports that its netdev went away (poll() stays silent for ever), so each wire has one thread on rtnetlink. It is
 * the only place that declares a wire dead: RTM_DELLINK of family AF_UNSPEC (a bridge sends AF_BRIDGE ones for ports that leave),
 * or a link that can't be found any more after a send failed. It also resumes stalled sends. All of its signals are blocked.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include "softvf/sv_wire.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static pthread_mutex_t wires_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sv_wire *wires;

static int nl_open(unsigned groups)
{
	struct sockaddr_nl sa = { .nl_family = AF_NETLINK, .nl_groups = groups };
	int fd = hv_sys_high(hv_sys_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
	int r;

	if (fd < 0)
		return fd;
	r = hv_sys_bind(fd, &sa, sizeof sa);
	if (r < 0) {
		hv_sys_close(fd);
		return r;
	}
	return fd;
}

static void parse_link(const struct nlmsghdr *h, struct sv_link *l)
{
	const struct ifinfomsg *m = NLMSG_DATA(h);
	const struct rtattr *a = IFLA_RTA(m), *b;
	int len = (int)IFLA_PAYLOAD(h), blen;

	memset(l, 0, sizeof *l);
	l->ifindex = m->ifi_index;
	l->flags = m->ifi_flags;
	for (; RTA_OK(a, len); a = RTA_NEXT(a, len)) {
		switch (a->rta_type) {
		case IFLA_IFNAME:
			strncpy(l->name, RTA_DATA(a), sizeof l->name - 1);
			break;
		case IFLA_MTU:
			memcpy(&l->mtu, RTA_DATA(a), sizeof l->mtu);
			break;
		case IFLA_ADDRESS:
			if (RTA_PAYLOAD(a) == sizeof l->mac)
				memcpy(l->mac, RTA_DATA(a), sizeof l->mac);
			break;
		case IFLA_LINKINFO:
			b = RTA_DATA(a);
			blen = (int)RTA_PAYLOAD(a);
			for (; RTA_OK(b, blen); b = RTA_NEXT(b, blen))
				if (b->rta_type == IFLA_INFO_KIND)
					strncpy(l->kind, RTA_DATA(b), sizeof l->kind - 1);
			break;
		default:
			break;
		}
	}
}

/* Ask for one link (ifindex) or all (0); fn returns non-zero to stop listening to the rest. */
static int nl_links(int fd, int ifindex, int (*fn)(const struct sv_link *l, void *arg), void *arg)
{
	static uint32_t seq;
	struct {
		struct nlmsghdr h;
		struct ifinfomsg m;
		struct rtattr a;
		uint32_t mask;
	} q;
	char *buf = malloc(32768);
	bool done = false;
	int r = 0;

	if (buf == NULL)
		return -ENOMEM;
	memset(&q, 0, sizeof q);
	q.h.nlmsg_len = sizeof q;
	q.h.nlmsg_type = RTM_GETLINK;
	q.h.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | (ifindex == 0 ? NLM_F_DUMP : 0));
	q.h.nlmsg_seq = __atomic_add_fetch(&seq, 1, __ATOMIC_RELAXED);
	q.m.ifi_family = AF_UNSPEC;
	q.m.ifi_index = ifindex;
	q.a.rta_type = IFLA_EXT_MASK; /* no statistics of virtual functions, please */
	q.a.rta_len = RTA_LENGTH(sizeof q.mask);
	r = (int)hv_sys_send(fd, &q, sizeof q, 0);
	r = r < 0 ? r : 0;
	while (r == 0 && !done) {
		long n = hv_sys_recv(fd, buf, 32768, 0);
		struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf;

		if (n == -EINTR)
			continue;
		if (n <= 0) {
			r = n < 0 ? (int)n : -EIO;
			break;
		}
		for (; NLMSG_OK(h, (uint32_t)n) && !done; h = NLMSG_NEXT(h, n)) {
			struct sv_link l;

			if (h->nlmsg_seq != q.h.nlmsg_seq)
				continue;
			if (h->nlmsg_type == NLMSG_DONE) {
				done = true;
			} else if (h->nlmsg_type == NLMSG_ERROR) {
				r = ((struct nlmsgerr *)NLMSG_DATA(h))->error;
				done = true;
			} else if (h->nlmsg_type == RTM_NEWLINK) {
				parse_link(h, &l);
				if (r == 0)
					r = fn(&l, arg);
				done = ifindex != 0;
			}
		}
	}
	free(buf);
	return r;
}

int sv_link_list(int (*fn)(const struct sv_link *l, void *arg), void *arg)
{
	int fd = nl_open(0), r;

	if (fd < 0)
		return fd;
	r = nl_links(fd, 0, fn, arg);
	hv_sys_close(fd);
	return r;
}

static int take_link(const struct sv_link *l, void *arg)
{
	*(struct sv_link *)arg = *l;
	return 0;
}

int sv_wire_query(struct sv_wire *w, struct sv_link *out)
{
	static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
	int r;

	pthread_mutex_lock(&one);
	r = nl_links(w->ctl_nl_fd, w->link.ifindex, take_link, out);
	pthread_mutex_unlock(&one);
	return r;
}

void sv_wire_wake(struct sv_wire *w, bool check)
{
	uint64_t one = 1;

	if (check)
		__atomic_store_n(&w->check, 1, __ATOMIC_RELEASE);
	(void)hv_sys_write(w->wake_fd, &one, sizeof one);
}

static void die(struct sv_wire *w)
{
	if (__atomic_exchange_n(&w->fatal, 1, __ATOMIC_ACQ_REL) != 0)
		return;
	__atomic_store_n(&w->up, 0, __ATOMIC_RELAXED);
	w->notify(w, SV_EV_FATAL);
}

static void state(struct sv_wire *w, unsigned flags)
{
	uint32_t up = (flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);

	if (sv_dead(w) || up == w->up)
		return;
	__atomic_store_n(&w->up, up, __ATOMIC_RELEASE);
	w->notify(w, up ? SV_EV_UP : SV_EV_DOWN);
	if (up) /* what was posted meanwhile, or was in the ring when it went down */
		w->progress(w);
}

static void recheck(struct sv_wire *w)
{
	struct sv_link l;
	int r = sv_wire_query(w, &l);

	if (r == -ENODEV)
		die(w);
	else if (r == 0)
		state(w, l.flags);
}

static void drain(struct sv_wire *w, char *buf, size_t cap)
{
	for (;;) {
		long n = hv_sys_recv(w->nl_fd, buf, cap, MSG_DONTWAIT);
		struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf;

		if (n == -ENOBUFS) { /* messages were lost: look */
			recheck(w);
			continue;
		}
		if (n <= 0)
			return;
		for (; NLMSG_OK(h, (uint32_t)n); h = NLMSG_NEXT(h, n)) {
			const struct ifinfomsg *m = NLMSG_DATA(h);

			if ((h->nlmsg_type != RTM_NEWLINK && h->nlmsg_type != RTM_DELLINK) || m->ifi_family != AF_UNSPEC || m->ifi_index != w->link.ifindex)
				continue;
			if (h->nlmsg_type == RTM_DELLINK)
				die(w);
			else
				state(w, m->ifi_flags);
		}
	}
}

static void *monitor(void *arg)
{
	struct sv_wire *w = arg;
	char *buf = malloc(32768);

	if (buf == NULL)
		return NULL;
	recheck(w); /* what happened between opening and subscribing */
	while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
		struct pollfd p[2] = { { .fd = w->nl_fd, .events = POLLIN }, { .fd = w->wake_fd, .events = POLLIN } };
		bool stalled = sv_stalled(w) && !sv_dead(w) && w->up;
		struct timespec ms = { 0, 1000000 };
		uint64_t v;

		(void)hv_sys_ppoll(p, 2, stalled ? &ms : NULL, NULL);
		if (p[1].revents)
			(void)hv_sys_read(w->wake_fd, &v, sizeof v);
		drain(w, buf, 32768);
		if (__atomic_exchange_n(&w->check, 0, __ATOMIC_ACQ_REL))
			recheck(w);
		if (stalled)
			w->progress(w);
	}
	free(buf);
	return NULL;
}

static int monitor_start(struct sv_wire *w)
{
	sigset_t all, old;
	int r;

	w->nl_fd = nl_open(RTMGRP_LINK);
	w->wake_fd = hv_sys_high(hv_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (w->nl_fd < 0 || w->wake_fd < 0)
		return w->nl_fd < 0 ? w->nl_fd : w->wake_fd;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&w->thread, NULL, monitor, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

static void wire_free(struct sv_wire *w)
{
	int fd[] = { w->nl_fd, w->ctl_nl_fd, w->wake_fd };
	unsigned i;

	for (i = 0; i < 3; i++)
		if (fd[i] >= 0)
			hv_sys_close(fd[i]);
	pthread_mutex_destroy(&w->ctl);
	free(w);
}

/*
 * A forked child has copies of all descriptors, and the queue stays taken as long as one copy is open: the parent, or the child itself, could never open it
 * again. The child has no use for the wire (its rings aren't inherited, the monitor thread doesn't exist), so its copies go at once. Locks that another
 * thread held at the fork are made anew.
 */
static void child_lets_go(void)
{
	struct sv_wire *w;

	pthread_mutex_init(&wires_lock, NULL);
	for (w = wires; w != NULL; w = w->next) {
		pthread_mutex_init(&w->ctl, NULL);
		__atomic_store_n(&w->fatal, 1, __ATOMIC_RELAXED);
		sv_wire_stop(w);
		hv_sys_close(w->nl_fd);
		hv_sys_close(w->ctl_nl_fd);
		hv_sys_close(w->wake_fd);
		w->nl_fd = w->ctl_nl_fd = w->wake_fd = -1;
	}
}

static void at_fork(void)
{
	(void)pthread_atfork(NULL, NULL, child_lets_go);
}

int sv_wire_open(struct sv_wire **out, int ifindex, const char *name, void (*notify)(struct sv_wire *, enum sv_event),
		 void (*progress)(struct sv_wire *))
{
	struct sv_wire *w, *o;
	const char *q = getenv("SOFTVF_QUEUE");
	void *mem = NULL;
	socklen_t sl = sizeof w->netns;
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int r;

	pthread_once(&once, at_fork);
	if (posix_memalign(&mem, 64, sizeof *w) != 0)
		return -ENOMEM;
	w = memset(mem, 0, sizeof *w);
	w->nl_fd = w->wake_fd = w->xsk_fd = w->pkt_fd = w->pkt_slow_fd = w->link_fd = -1;
	w->rx_prod = &w->zero;
	w->refs = 1;
	w->pid = hv_sys_getpid();
	w->notify = notify;
	w->progress = progress;
	w->link.ifindex = ifindex;
	w->queue = q != NULL ? (uint32_t)strtoul(q, NULL, 10) : 0;
	pthread_mutex_init(&w->ctl, NULL);
	w->ctl_nl_fd = nl_open(0);
	r = w->ctl_nl_fd < 0 ? w->ctl_nl_fd : sv_wire_query(w, &w->link);
	if (r == 0 && strcmp(w->link.name, name) != 0)
		r = -ENODEV; /* the number belongs to another netdev by now */
	if (r < 0) {
		wire_free(w);
		return r;
	}
	(void)hv_sys_getsockopt(w->ctl_nl_fd, SOL_SOCKET, SO_NETNS_COOKIE, &w->netns, &sl);
	w->up = (w->link.flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);

	pthread_mutex_lock(&wires_lock);
	for (o = wires; o != NULL; o = o->next) {
		if (o->link.ifindex == ifindex && o->netns == w->netns && o->pid == w->pid && !sv_dead(o)) {
			o->refs++;
			break;
		}
	}
	if (o == NULL) {
		r = monitor_start(w);
		if (r == 0) {
			w->next = wires;
			wires = w;
		}
	}
	pthread_mutex_unlock(&wires_lock);
	if (o != NULL || r < 0)
		wire_free(w);
	if (r == 0)
		*out = o != NULL ? o : w;
	return r;
}

void sv_wire_close(struct sv_wire *w)
{
	struct sv_wire **p;
	bool last;

	pthread_mutex_lock(&wires_lock);
	last = --w->refs == 0;
	for (p = &wires; last && *p != NULL; p = &(*p)->next) {
		if (*p == w) {
			*p = w->next;
			break;
		}
	}
	pthread_mutex_unlock(&wires_lock);
	if (!last)
		return;
	if (w->pid == hv_sys_getpid()) { /* the thread doesn't exist in a forked child */
		__atomic_store_n(&w->stop, 1, __ATOMIC_RELEASE);
		sv_wire_wake(w, false);
		pthread_join(w->thread, NULL);
	}
	sv_wire_stop(w);
	wire_free(w);
}
