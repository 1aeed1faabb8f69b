/*
 * epoll.c - epoll sets that hold sockets of both tiers.
 *
 * The program's epfd is a kernel epoll set. A socket's entry is in the kernel set while the socket is in the kernel tier (UDP: always, for
 * the kernel's queue) and in the set's own ready list while it is on the VF; promotion deletes it from the kernel set, demotion adds it
 * again with the program's data. While a set has VF members, an eventfd and the completion channel are in the kernel set too, so a thread
 * that sleeps in epoll_wait - even since before the promotion - wakes up; their events carry tags that never reach the program.
 *
 * Everything under G.lock except the sleep itself.
 */
#include "engine/internal.h"

#define EXCLUSIVE_MAY (EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | (uint32_t)EPOLLET | EPOLLEXCLUSIVE)
#define WANT(it) (((it)->events & 0xffffu) | EPOLLERR | EPOLLHUP)

static uint64_t tag_ev(const struct hv_epoll *ep)
{
	return (uint64_t)(uintptr_t)&ep->evfd;
}

static uint64_t tag_chan(const struct hv_epoll *ep)
{
	return (uint64_t)(uintptr_t)&ep->chan_in;
}

struct hv_epoll *hv_epoll_new(int epfd)
{
	struct hv_epoll *ep = hv_obj_alloc(sizeof *ep);

	if (ep == NULL)
		return NULL;
	ep->epfd = epfd;
	ep->evfd = -1;
	ep->fork_gen = atomic_load(&G.fork_gen);
	ep->ready_tail = &ep->ready;
	atomic_store(&ep->refs, 1);
	return ep;
}

void hv_epoll_ref(struct hv_epoll *ep)
{
	atomic_fetch_add(&ep->refs, 1);
}

/* ---- ready list ---- */

static void enqueue(struct hv_epitem *it)
{
	struct hv_epoll *ep = it->ep;

	if (it->queued)
		return;
	it->queued = true;
	it->r_next = NULL;
	it->r_prev = ep->ready_tail;
	*ep->ready_tail = it;
	ep->ready_tail = &it->r_next;
}

static void dequeue(struct hv_epitem *it)
{
	if (!it->queued)
		return;
	it->queued = false;
	*it->r_prev = it->r_next;
	if (it->r_next != NULL)
		it->r_next->r_prev = it->r_prev;
	else
		it->ep->ready_tail = it->r_prev;
}

static void signal_set(struct hv_epoll *ep)
{
	uint64_t one = 1;

	if (ep->evfd >= 0 && !atomic_exchange(&ep->signalled, true))
		hv_sys_write(ep->evfd, &one, sizeof one);
}

static void unsignal(struct hv_epoll *ep)
{
	uint64_t v;

	if (atomic_exchange(&ep->signalled, false))
		hv_sys_read(ep->evfd, &v, sizeof v);
}

void hv_epoll_event(struct hv_sock *s, uint32_t events)
{
	for (struct hv_epitem *it = s->p->items; it != NULL; it = it->s_next) {
		if (it->disarmed || (WANT(it) & events) == 0)
			continue;
		it->edge = true;
		enqueue(it);
		if (atomic_load(&it->ep->sleepers) != 0 || atomic_load(&it->ep->nested))
			signal_set(it->ep);
	}
}

/* Something was consumed: an epfd that others watch must not stay readable for it. */
void hv_epoll_consumed(struct hv_sock *s)
{
	for (struct hv_epitem *it = s->p->items; it != NULL; it = it->s_next) {
		struct hv_epoll *ep = it->ep;
		uint32_t ev;
		if (!atomic_load(&ep->nested) || !atomic_load(&ep->signalled))
			continue;
		bool any = false;
		for (struct hv_epitem *r = ep->ready; r != NULL && !any; r = r->r_next)
			any = hv_sock_events(r->s, &ev) && !r->disarmed && (ev & WANT(r)) != 0 && ((r->events & EPOLLET) == 0 || r->edge);
		if (!any)
			unsignal(ep);
	}
}

/* ---- membership ---- */

static struct hv_epitem *find(struct hv_epoll *ep, struct hv_sock *s, int fd)
{
	for (struct hv_epitem *it = s->p->items; it != NULL; it = it->s_next)
		if (it->ep == ep && it->fd == fd)
			return it;
	return NULL;
}

void hv_epitem_drop(struct hv_epitem *it)
{
	dequeue(it);
	it->ep->swallows -= it->swallow != 0;
	*it->s_prev = it->s_next;
	if (it->s_next != NULL)
		it->s_next->s_prev = it->s_prev;
	*it->e_prev = it->e_next;
	if (it->e_next != NULL)
		it->e_next->e_prev = it->e_prev;
	if (hv_sock_vf(it->s))
		atomic_fetch_sub(&it->ep->vf_items, 1);
	hv_obj_free(it, sizeof *it);
}

void hv_epoll_put(struct hv_epoll *ep)
{
	if (atomic_fetch_sub(&ep->refs, 1) != 1)
		return;
	hv_lock(&G.lock);
	while (ep->items != NULL) {
		struct hv_epitem *it = ep->items;
		hv_epitem_drop(it);
	}
	if (ep->evfd >= 0) {
		*ep->ev_prev = ep->ev_next;
		if (ep->ev_next != NULL)
			ep->ev_next->ev_prev = ep->ev_prev;
	}
	hv_unlock(&G.lock);
	if (ep->evfd >= 0)
		hv_sys_close(ep->evfd);
	hv_obj_free(ep, sizeof *ep);
}

static struct hv_epitem *new_item(struct hv_epoll *ep, struct hv_sock *s, int fd, const struct epoll_event *ev)
{
	struct hv_epitem *it = hv_obj_alloc(sizeof *it);

	if (it == NULL)
		return NULL;
	it->ep = ep;
	it->s = s;
	it->fd = fd;
	it->events = ev->events;
	it->data = ev->data.u64;
	it->s_next = s->p->items;
	it->s_prev = &s->p->items;
	if (s->p->items != NULL)
		s->p->items->s_prev = &it->s_next;
	s->p->items = it;
	it->e_next = ep->items;
	it->e_prev = &ep->items;
	if (ep->items != NULL)
		ep->items->e_prev = &it->e_next;
	ep->items = it;
	return it;
}

/* The set gets its first VF member, or a new ring has replaced the old. False: no descriptor is left, nobody who sleeps could be woken. */
static bool activate(struct hv_epoll *ep)
{
	struct epoll_event ev;

	if (ep->evfd < 0) {
		int fd = hv_sys_eventfd(0, 04000 | 02000000);
		if (fd < 0)
			return false;
		ep->evfd = hv_sys_high(fd);
		ep->ev_next = G.evs;
		ep->ev_prev = &G.evs;
		if (G.evs != NULL)
			G.evs->ev_prev = &ep->ev_next;
		G.evs = ep;
		ev.events = EPOLLIN;
		ev.data.u64 = tag_ev(ep);
		hv_sys_epoll_ctl(ep->epfd, EPOLL_CTL_ADD, ep->evfd, &ev);
	}
	if (ep->chan_epoch != atomic_load(&G.epoch) && G.vf != NULL) {
		ev.events = EPOLLIN;
		ev.data.u64 = tag_chan(ep);
		/* the old ring's channel left the set when it was closed */
		ep->chan_in = hv_sys_epoll_ctl(ep->epfd, EPOLL_CTL_ADD, hv_vf_channel_fd(G.vf), &ev) == 0;
		ep->chan_epoch = atomic_load(&G.epoch);
	}
	return true;
}

/* Before a promotion: can all of its sets have a VF member? */
bool hv_epoll_room(const struct hv_sock *s)
{
	bool ok = true;

	for (struct hv_epitem *it = s->p->items; it != NULL && ok; it = it->s_next)
		ok = activate(it->ep);
	return ok;
}

static void vf_member(struct hv_epitem *it)
{
	uint32_t ev;

	atomic_fetch_add(&it->ep->vf_items, 1);
	it->ep->swallows -= it->swallow != 0;
	it->swallow = 0;
	activate(it->ep);
	if (it->s->type == SOCK_STREAM) {
		if (it->in_kernel)
			hv_sys_epoll_ctl(it->ep->epfd, EPOLL_CTL_DEL, it->fd, NULL);
		it->in_kernel = false;
	}
	if (it->disarmed)
		return;
	if (hv_sock_events(it->s, &ev) || it->s->type == SOCK_STREAM) {
		it->edge = true; /* as EPOLL_CTL_ADD: the present state counts as news */
		enqueue(it);
		if (atomic_load(&it->ep->sleepers) != 0 || atomic_load(&it->ep->nested))
			signal_set(it->ep);
	}
}

/* The tier is about to become VF. */
void hv_epoll_promoted(struct hv_sock *s)
{
	for (struct hv_epitem *it = s->p->items; it != NULL; it = it->s_next)
		vf_member(it);
}

/* The kernel socket is alive again; tier is about to become KERNEL. */
void hv_epoll_demoted(struct hv_sock *s)
{
	for (struct hv_epitem *it = s->p->items; it != NULL; it = it->s_next) {
		atomic_fetch_sub(&it->ep->vf_items, 1);
		dequeue(it);
		if (it->in_kernel)
			continue;
		struct epoll_event ev = { .events = it->disarmed ? EPOLLONESHOT : it->events, .data.u64 = it->data };
		int r = hv_sys_epoll_ctl(it->ep->epfd, EPOLL_CTL_ADD, it->fd, &ev);
		it->in_kernel = r == 0 || r == -EEXIST;
		/* What an edge-triggered member had reported is no news, but ADD makes it so. */
		if ((it->events & EPOLLET) != 0 && !it->edge && (s->p->events_before & WANT(it)) != 0) {
			it->ep->swallows += it->swallow == 0;
			it->swallow = s->p->events_before & 0xffffu;
		}
		if (!it->in_kernel)
			hv_log(HV_LOG_WARN, "epoll: a socket could not be put back into its set (error %d)", -r);
		if (it->disarmed && it->in_kernel) {
			/* A one-shot entry that has fired reports nothing, not even errors, until it is armed again: MOD keeps that, ADD
			 * doesn't. */
			ev.events = EPOLLONESHOT;
			hv_sys_epoll_ctl(it->ep->epfd, EPOLL_CTL_MOD, it->fd, &ev);
		}
	}
}

static int ctl_locked(struct hv_epoll *ep, int epfd, int op, int fd, struct hv_sock *s, struct epoll_event *ev)
{
	struct hv_epitem *it = find(ep, s, fd);
	bool vf = hv_sock_vf(s), own = vf && s->type == SOCK_STREAM;
	int r = 0;

	if (op != EPOLL_CTL_DEL && ev == NULL)
		return -EFAULT;
	if ((op != EPOLL_CTL_ADD && op != EPOLL_CTL_MOD && op != EPOLL_CTL_DEL) ||
	    (op == EPOLL_CTL_ADD && (ev->events & EPOLLEXCLUSIVE) != 0 && (ev->events & ~EXCLUSIVE_MAY) != 0))
		return -EINVAL; /* as do_epoll_ctl() */
	ep->epfd = epfd;
	if (vf && op == EPOLL_CTL_ADD && it == NULL && !activate(ep)) {
		if (hv_demote_locked(s, HV_WHY_NO_WAIT, false) != 0)
			return -ENOMEM;
		hv_stay(s, HV_WHY_NO_WAIT, 1000000000);
		vf = own = false;
	}
	if (!own || it == NULL || it->in_kernel) {
		/* A parked socket must not enter the kernel's set, not even for a moment: it is EPOLLOUT-ready for ever. */
		if (own && op == EPOLL_CTL_ADD) {
			if (it != NULL)
				return -EEXIST;
		} else {
			r = hv_sys_epoll_ctl(epfd, op, fd, ev);
			if (r < 0)
				return r;
		}
	} else if (op == EPOLL_CTL_ADD) {
		return -EEXIST;
	} else if (op == EPOLL_CTL_MOD && ((ev->events | it->events) & EPOLLEXCLUSIVE) != 0) {
		return -EINVAL; /* as ep_modify() */
	}
	switch (op) {
	case EPOLL_CTL_ADD:
		if (it == NULL)
			it = new_item(ep, s, fd, ev);
		if (it == NULL && vf) {
			if (!own)
				hv_sys_epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
			return -ENOMEM;
		}
		if (it == NULL) { /* no mirror: such a socket may not be moved */
			atomic_store(&s->pinned, true);
			return 0;
		}
		it->in_kernel = !own;
		if (vf)
			vf_member(it);
		break;
	case EPOLL_CTL_MOD:
		if (it == NULL)
			return own ? -ENOENT : 0;
		it->events = ev->events;
		it->data = ev->data.u64;
		it->disarmed = false;
		ep->swallows -= it->swallow != 0; /* MOD means: tell me again */
		it->swallow = 0;
		if (vf) {
			it->edge = true;
			enqueue(it);
			if (atomic_load(&ep->sleepers) != 0 || atomic_load(&ep->nested))
				signal_set(ep);
		}
		break;
	case EPOLL_CTL_DEL:
		if (it == NULL)
			return own ? -ENOENT : 0;
		hv_epitem_drop(it);
		break;
	default:
		break;
	}
	return 0;
}

int hv_epoll_ctl(struct hv_epoll *ep, int epfd, int op, int fd, struct hv_sock *s, struct epoll_event *ev)
{
	if (s == NULL || s->type == 0)
		return hv_sys_epoll_ctl(epfd, op, fd, ev);
	for (;;) {
		bool vf = hv_sock_vf(s);
		if (!vf && !hv_kernel_enter(s)) /* not while it moves */
			continue;
		hv_lock(&G.lock);
		if (hv_sock_vf(s) != vf) {
			hv_unlock(&G.lock);
			if (!vf)
				hv_kernel_leave(s, 0);
			continue;
		}
		hv_fork_changed(ep->fork_gen);
		int r = ctl_locked(ep, epfd, op, fd, s, ev);
		hv_unlock(&G.lock);
		if (!vf)
			hv_kernel_leave(s, 0);
		return r;
	}
}

void hv_epoll_fd_closed(struct hv_epoll *ep, int fd, int other)
{
	hv_lock(&G.lock);
	if (ep->epfd == fd)
		ep->epfd = other;
	hv_unlock(&G.lock);
}

bool hv_epoll_active(const struct hv_epoll *ep)
{
	return atomic_load(&((struct hv_epoll *)(uintptr_t)ep)->vf_items) != 0;
}

void hv_epoll_set_nested(struct hv_epoll *ep)
{
	atomic_store(&ep->nested, true);
	hv_lock(&G.lock);
	if (ep->ready != NULL)
		signal_set(ep);
	hv_unlock(&G.lock);
}

/* ---- waiting ---- */

/* A UDP socket has two queues, and to the program one entry. */
static bool merge(struct epoll_event *ev, int n, uint64_t data, uint32_t events)
{
	for (int i = 0; i < n; i++)
		if (ev[i].data.u64 == data) {
			ev[i].events |= events;
			return true;
		}
	return false;
}

/* Lock held. Ready VF members, in turn, behind the first `from`, which are the kernel's: what still applies is reported, level-triggered ones go to the tail again. */
static int collect(struct hv_epoll *ep, struct epoll_event *out, int from, int max)
{
	struct hv_epitem *it = ep->ready, *next, *stop = NULL;
	int n = from;

	for (; it != NULL && it != stop && n < max; it = next) {
		uint32_t ev;
		next = it->r_next;
		if (!hv_sock_events(it->s, &ev)) {
			dequeue(it);
			continue;
		}
		if (it->s->type != SOCK_STREAM) {
			ev = it->s->p->udp.count != 0 ? EPOLLIN | EPOLLRDNORM : 0; /* the kernel set answers for the rest */
		}
		ev &= WANT(it);
		if (ev == 0 || it->disarmed || ((it->events & EPOLLET) != 0 && !it->edge)) {
			it->edge = false;
			dequeue(it);
			continue;
		}
		if (it->s->type == SOCK_STREAM || !merge(out, from, it->data, ev)) {
			out[n].events = ev;
			out[n].data.u64 = it->data;
			n++;
		}
		it->edge = false;
		dequeue(it);
		if ((it->events & EPOLLONESHOT) != 0) {
			it->disarmed = true;
			if (it->in_kernel) { /* UDP: both queues are one entry to the program */
				struct epoll_event e = { .events = EPOLLONESHOT, .data.u64 = it->data };
				hv_sys_epoll_ctl(ep->epfd, EPOLL_CTL_MOD, it->fd, &e);
			}
		} else if ((it->events & EPOLLET) == 0) {
			enqueue(it);
			if (stop == NULL)
				stop = it;
		}
	}
	if (ep->ready == NULL && atomic_load(&ep->nested))
		unsignal(ep);
	return n - from;
}

/* Takes our own two out of what the kernel returned, marks UDP sockets whose kernel queue has something, merges doubles. */
static int filter(struct hv_epoll *ep, struct epoll_event *ev, int from, int n, bool *chan)
{
	int k = from;

	for (int i = from; i < from + n; i++) {
		uint64_t d = ev[i].data.u64;
		if (d == tag_ev(ep))
			continue;
		if (d == tag_chan(ep)) {
			*chan = true;
			continue;
		}
		if (HV_UNLIKELY(ep->swallows != 0)) {
			struct hv_epitem *it = ep->items;
			while (it != NULL && (it->data != d || it->swallow == 0))
				it = it->e_next;
			if (it != NULL) {
				bool old = (ev[i].events & 0xffffu & ~it->swallow) == 0;
				ep->swallows--;
				it->swallow = 0;
				if (old)
					continue;
			}
		}
		bool udp = false;
		if (from != 0 || atomic_load_explicit(&ep->vf_items, memory_order_relaxed) != 0) {
			for (struct hv_epitem *it = ep->items; it != NULL; it = it->e_next) {
				if (it->data != d || it->s->type == SOCK_STREAM || !hv_sock_vf(it->s))
					continue;
				if ((ev[i].events & (EPOLLIN | EPOLLERR)) != 0)
					hv_kernel_has(it->s->p, true);
				if ((it->events & EPOLLONESHOT) != 0)
					it->disarmed = true;
				udp = true;
			}
		}
		if (!udp || !merge(ev, from, d, ev[i].events))
			ev[k++] = ev[i];
	}
	return k - from;
}

static int look(int epfd, struct epoll_event *ev, int max)
{
	return hv_sys_epoll_pwait(epfd, ev, max, 0, NULL);
}

struct sleep {
	struct hv_epoll *ep;
	bool on_ring; /* G.sleepers counts it */
};

/* The thread is cancelled in its sleep and won't come back. */
static void cancelled(void *arg)
{
	struct sleep *z = arg;

	hv_sleep_end();
	hv_lock(&G.lock);
	atomic_fetch_sub(&z->ep->sleepers, 1);
	G.sleepers -= z->on_ring;
	if (G.sleepers != 0 && !G.armed)
		hv_ring_arm();
	hv_unlock(&G.lock);
	hv_wait_gone();
}

static int uncancelled_wait(int epfd, struct epoll_event *ev, int max, int64_t ns, const sigset_t *mask)
{
	struct timespec ts = ns < 0 ? HV_LONG : (struct timespec){ ns / 1000000000, ns % 1000000000 };

	hv_sleep_begin(&ts);
	int r = hv_sys_epoll_pwait2(epfd, ev, max, &ts, mask);
	hv_sleep_end();
	if (r == 0 && hv_sig_kept)
		return -EINTR;
	if (r == -ENOSYS)
		r = hv_sys_epoll_pwait(epfd, ev, max, ns < 0 ? -1 : (int)((ns + 999999) / 1000000), mask);
	return r;
}

static __attribute__((noinline)) int kernel_wait(struct sleep *z, int epfd, struct epoll_event *ev, int max, int64_t ns, const sigset_t *mask)
{
	int r, type;

	if (ns == 0 && mask == NULL)
		return look(epfd, ev, max);
	pthread_cleanup_push(cancelled, z);
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	r = uncancelled_wait(epfd, ev, max, ns, mask);
	pthread_setcanceltype(type, NULL);
	pthread_cleanup_pop(0);
	return r;
}

static int sleep_in_kernel(struct hv_epoll *ep, int epfd, struct epoll_event *ev, int max, int64_t ns, const sigset_t *mask)
{
	bool chan = false;

	hv_lock(&G.lock);
	atomic_fetch_add(&ep->sleepers, 1);
	unsignal(ep);
	if (atomic_load(&ep->vf_items) != 0) {
		activate(ep);
		hv_ring_arm();
		hv_ring_poll(hv_now_ns());
	}
	int n = collect(ep, ev, 0, max);
	if (n == 0)
		G.sleepers++;
	hv_unlock(&G.lock);
	if (n != 0) {
		atomic_fetch_sub(&ep->sleepers, 1);
		return n;
	}
	HV_COUNT(sleeps);
	int r = kernel_wait(&(struct sleep){ ep, true }, epfd, ev, max, ns, mask);
	hv_lock(&G.lock);
	G.sleepers--;
	atomic_fetch_sub(&ep->sleepers, 1);
	if (r > 0)
		r = filter(ep, ev, 0, r, &chan);
	if (G.vf != NULL) {
		if (chan) {
			hv_vf_channel_ack(G.vf);
			G.armed = false;
		}
		hv_ring_poll(hv_now_ns());
		if (G.sleepers != 0 && !G.armed && hv_ring_arm())
			hv_ring_poll(hv_now_ns());
	}
	if (r >= 0 && r < max)
		r += collect(ep, ev, r, max);
	hv_unlock(&G.lock);
	return r;
}

/* The kernel's part as it is now, behind the first n. */
static int look_kernel(struct hv_epoll *ep, int epfd, struct epoll_event *ev, int n, int max, int64_t now)
{
	bool chan = false;

	atomic_store_explicit(&ep->turns, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->kernel_seen_ns, (uint64_t)now, memory_order_relaxed);
	int r = look(epfd, ev + n, max - n);
	if (r > 0) {
		hv_lock(&G.lock);
		r = filter(ep, ev, n, r, &chan);
		if (chan && G.vf != NULL) {
			hv_vf_channel_ack(G.vf);
			G.armed = false;
		}
		hv_unlock(&G.lock);
	}
	return r;
}

int hv_epoll_wait(struct hv_epoll *ep, int epfd, struct epoll_event *ev, int max, int64_t timeout_ns, const sigset_t *mask)
{
	int64_t start = (int64_t)hv_now_ns(), now = start;
	uint64_t budget = mask != NULL ? 0 : hv_spin_budget();
	int64_t deadline = timeout_ns < 0 ? INT64_MAX : start + timeout_ns;
	uint32_t sig = hv_sig_count;
	bool slept = false;

	if (max <= 0 || (unsigned)max > INT32_MAX / sizeof *ev)
		return -EINVAL;
	while (atomic_load(&ep->vf_items) == 0 && ep->evfd < 0) {
		/* A set that never had a VF member: straight to the kernel, unless a promotion changes that while we sleep. */
		atomic_fetch_add(&ep->sleepers, 1);
		int r = ep->evfd < 0 ? kernel_wait(&(struct sleep){ ep, false }, epfd, ev, max, deadline == INT64_MAX ? -1 : deadline > now ? deadline - now : 0, mask) : 0;
		atomic_fetch_sub(&ep->sleepers, 1);
		if (ep->evfd < 0)
			return r;
		bool chan = false;
		hv_lock(&G.lock);
		if (r > 0)
			r = filter(ep, ev, 0, r, &chan);
		hv_unlock(&G.lock);
		if (r != 0)
			return r;
		now = (int64_t)hv_now_ns();
	}
	for (;;) {
		int n = 0;
		if (atomic_load(&ep->vf_items) != 0) {
			bool first = atomic_load_explicit(&ep->kernel_first, memory_order_relaxed);
			if (HV_UNLIKELY(first)) {
				atomic_store_explicit(&ep->kernel_first, false, memory_order_relaxed);
				n = look_kernel(ep, epfd, ev, 0, max, now);
				if (n < 0)
					return n;
			}
			hv_lock(&G.lock);
			ep->epfd = epfd;
			hv_ring_poll((uint64_t)now);
			n += collect(ep, ev, n, max);
			hv_unlock(&G.lock);
			uint32_t turn = atomic_load_explicit(&ep->turns, memory_order_relaxed) + (n != 0);
			/* Who won't wait takes "nothing" for an answer about all of the set. */
			bool due = (timeout_ns == 0 && n == 0) || now - (int64_t)atomic_load_explicit(&ep->kernel_seen_ns, memory_order_relaxed) >= (int64_t)HV_KERNEL_LOOK_NS || turn >= 8;
			atomic_store_explicit(&ep->turns, turn, memory_order_relaxed);
			if (due && !first) {
				atomic_store_explicit(&ep->kernel_first, n == max, memory_order_relaxed);
				if (n < max) {
					int r = look_kernel(ep, epfd, ev, n, max, now);
					if (r < 0 && n == 0)
						return r;
					n += r > 0 ? r : 0;
				}
			}
			if (n != 0) {
				hv_spin_learn(!slept, (uint64_t)(now - start));
				return n;
			}
		}
		if (hv_sig_count != sig || hv_sig_kept)
			return -EINTR;
		if (timeout_ns != 0 && !slept && (uint64_t)(now - start) < budget && now < deadline && atomic_load(&ep->vf_items) != 0) {
			hv_cpu_relax();
			now = (int64_t)hv_now_ns();
			continue;
		}
		if (timeout_ns == 0 && atomic_load(&ep->vf_items) != 0 && mask == NULL)
			return 0;
		int64_t rest = deadline == INT64_MAX ? -1 : deadline > now ? deadline - now : 0;
		n = sleep_in_kernel(ep, epfd, ev, max, rest, mask);
		slept = true;
		if (n != 0) {
			if (n > 0)
				hv_spin_learn(false, hv_now_ns() - (uint64_t)start);
			return n;
		}
		now = (int64_t)hv_now_ns();
		if (now >= deadline)
			return 0;
	}
}
