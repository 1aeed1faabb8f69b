/*
 * wait.c - sleeping and spinning: one primitive for blocking calls, poll and select.
 *
 * A wait spins for a bounded time (polling the ring), then arms the completion channel, looks once more, and sleeps in one real ppoll()
 * over {its own eventfd, the completion channel, the kernel descriptors of the set}: signals, masks and cancellation are the kernel's.
 * Whoever polls the ring wakes the sockets' waiters by their eventfds.
 */
#include <sched.h>

#include "engine/internal.h"

__thread uint32_t hv_sig_count __attribute__((tls_model("initial-exec")));
__thread bool hv_sig_kept __attribute__((tls_model("initial-exec")));
__thread volatile struct timespec *hv_sleep __attribute__((tls_model("initial-exec")));
__thread int hv_lock_held __attribute__((tls_model("initial-exec")));
__thread const char *hv_handler_frame __attribute__((tls_model("initial-exec")));
static __thread uint32_t spin_ns __attribute__((tls_model("initial-exec")));
static __thread bool spin_set __attribute__((tls_model("initial-exec")));

#define HANDLER_STACK 262144

/* Are we above a handler's frame? It may have been left by a jump, which nobody tells us of. */
bool hv_in_handler(void)
{
	const char *here = __builtin_frame_address(0);

	if (hv_handler_frame == NULL)
		return false;
	if (here < hv_handler_frame && hv_handler_frame - here < HANDLER_STACK)
		return true;
	hv_handler_frame = NULL;
	return false;
}

void hv_lock_slow(struct hv_lock *l)
{
	for (unsigned i = 0; i < 200; i++) {
		hv_cpu_relax();
		if (atomic_load_explicit(&l->v, memory_order_relaxed) == 0 && hv_trylock(l))
			return;
	}
	while (atomic_exchange_explicit(&l->v, 2, memory_order_acquire) != 0)
		hv_sys_futex((uint32_t *)&l->v, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 2, NULL);
	hv_lock_held = 1;
}

/* ---- eventfds ---- */

struct hv_wakefd *hv_wakefd_get(void)
{
	struct hv_wakefd *w = G.wakefds;

	if (w != NULL) {
		G.wakefds = w->next;
		return w;
	}
	w = hv_obj_alloc(sizeof *w);
	if (w == NULL)
		return NULL;
	int fd = hv_sys_eventfd(0, 04000 | 02000000 /* EFD_NONBLOCK | EFD_CLOEXEC */);
	if (fd < 0) {
		hv_obj_free(w, sizeof *w);
		return NULL;
	}
	w->fd = hv_sys_high(fd);
	w->all_next = G.all_wakefds;
	G.all_wakefds = w;
	return w;
}

void hv_wakefd_put(struct hv_wakefd *w)
{
	uint64_t v;

	if (atomic_exchange(&w->signalled, false))
		hv_sys_read(w->fd, &v, sizeof v);
	w->next = G.wakefds;
	G.wakefds = w;
}

void hv_wakefd_signal(struct hv_wakefd *w)
{
	uint64_t one = 1;

	if (!atomic_exchange(&w->signalled, true))
		hv_sys_write(w->fd, &one, sizeof one);
}

/* ---- how long to spin: per thread, halved when it was in vain, restored when the event came soon after falling asleep ---- */

uint64_t hv_spin_budget(void)
{
	if (!spin_set) {
		spin_set = true;
		spin_ns = (uint32_t)(hv_conf.spin_us > 4000000 ? 4000000000u : (uint64_t)hv_conf.spin_us * 1000u);
	}
	return spin_ns;
}

void hv_spin_learn(bool hit, uint64_t waited_ns)
{
	uint64_t max = (uint64_t)hv_conf.spin_us * 1000u;

	if (max > 4000000000u)
		max = 4000000000u;
	if (hit) {
		HV_COUNT(spins_hit);
		return;
	}
	if (waited_ns <= 2 * max) /* a little longer would have done */
		spin_ns = (uint32_t)max;
	else if (spin_ns > max / 16)
		spin_ns /= 2;
	else
		spin_ns = (uint32_t)(max / 16);
}

/* ---- the wait ---- */

static uint32_t to_epoll(short ev)
{
	return (uint32_t)(unsigned short)ev; /* POLL* and EPOLL* share their low bits */
}

struct state {
	struct hv_pollent *ents;
	unsigned n;
	struct pollfd *pfd;   /* kernel descriptors, then our two */
	unsigned *back;       /* pfd index -> entry */
	unsigned npfd;
	struct hv_waiter *w;  /* one per VF entry */
	unsigned nw;
	bool entered;         /* hv_kernel_enter() done on kernel-tier entries */
};

static void leave(struct state *st)
{
	if (!st->entered)
		return;
	for (unsigned i = 0; i < st->n; i++)
		if (st->ents[i].s != NULL && st->ents[i].revents == -1)
			hv_kernel_leave(st->ents[i].s, 0);
	st->entered = false;
}

/* Sorts entries by tier: VF ones are asked here, the others go into pfd. revents == -1 marks a kernel-tier socket that is held in the
 * kernel for this round. */
static void enter(struct state *st)
{
	st->npfd = 0;
	st->nw = 0;
	for (unsigned i = 0; i < st->n; i++) {
		struct hv_pollent *e = &st->ents[i];
		e->revents = 0;
		if (e->fd < 0)
			continue;
		bool vf = false;
		if (e->s != NULL) {
			while (!(vf = hv_sock_vf(e->s)) && !hv_kernel_enter(e->s))
				;
			if (!vf)
				e->revents = -1;
		}
		if (vf && e->s->type == SOCK_STREAM) {
			st->nw++;
			continue;
		}
		if (vf)
			st->nw++;
		st->pfd[st->npfd] = (struct pollfd){ e->fd, e->events, 0 };
		st->back[st->npfd++] = i;
	}
	st->entered = true;
}

static bool vf_entry(const struct hv_pollent *e)
{
	return e->s != NULL && e->fd >= 0 && e->revents != -1 && hv_sock_vf(e->s);
}

/* Lock held or not: readiness of VF entries is read under the lock. Returns ready VF entries; moved = one of them left the VF. */
static unsigned ask_vf(struct state *st, bool *moved)
{
	unsigned ready = 0;

	for (unsigned i = 0; i < st->n; i++) {
		struct hv_pollent *e = &st->ents[i];
		uint32_t ev;
		if (e->s == NULL || e->fd < 0 || e->revents == -1)
			continue;
		if (!hv_sock_events(e->s, &ev)) {
			*moved = true;
			continue;
		}
		ev &= to_epoll(e->events) | EPOLLERR | EPOLLHUP;
		if (e->s->type != SOCK_STREAM) /* k_ready comes from the kernel's own answer */
			ev &= ~(uint32_t)(EPOLLOUT | EPOLLWRNORM);
		e->revents = (short)ev;
		ready += ev != 0;
	}
	return ready;
}

static void link_waiters(struct state *st, struct hv_wakefd *wake)
{
	unsigned k = 0;

	for (unsigned i = 0; i < st->n; i++) {
		struct hv_pollent *e = &st->ents[i];
		if (!vf_entry(e))
			continue;
		struct hv_waiter *w = &st->w[k++];
		struct hv_sock_priv *p = e->s->p;
		w->wake = wake;
		w->events = to_epoll(e->events) | EPOLLERR | EPOLLHUP;
		w->next = p->waiters;
		w->prev = &p->waiters;
		if (p->waiters != NULL)
			p->waiters->prev = &w->next;
		p->waiters = w;
	}
	st->nw = k;
}

static void unlink_waiters(struct state *st)
{
	for (unsigned k = 0; k < st->nw; k++) {
		*st->w[k].prev = st->w[k].next;
		if (st->w[k].next != NULL)
			st->w[k].next->prev = st->w[k].prev;
	}
}

/* Takes the kernel's answers over; returns how many entries they make ready that weren't. */
static unsigned take(struct state *st)
{
	unsigned ready = 0;

	for (unsigned k = 0; k < st->npfd; k++) {
		struct hv_pollent *e = &st->ents[st->back[k]];
		short r = st->pfd[k].revents;
		if (r == 0)
			continue;
		if (vf_entry(e)) { /* UDP: both queues count */
			if ((r & (POLLIN | POLLERR)) != 0 && e->s->type != SOCK_STREAM)
				hv_kernel_has(e->s->p, true);
			ready += e->revents == 0;
			e->revents |= r;
		} else {
			if (e->revents == -1)
				hv_kernel_leave(e->s, 0);
			e->revents = r;
			ready++;
		}
	}
	return ready;
}

/* Kernel-tier marks that stayed become 0. */
static void done(struct state *st)
{
	leave(st);
	for (unsigned i = 0; i < st->n; i++)
		if (st->ents[i].revents == -1)
			st->ents[i].revents = 0;
}

static int look_kernel(struct state *st, unsigned vf_ready)
{
	struct timespec zero = { 0, 0 };

	if (st->npfd == 0)
		return (int)vf_ready;
	int r = hv_sys_ppoll(st->pfd, st->npfd, &zero, NULL);
	return r < 0 ? r : (int)(vf_ready + take(st));
}

static struct timespec left(int64_t deadline)
{
	int64_t d = deadline - (int64_t)hv_now_ns();

	if (d < 0)
		d = 0;
	return (struct timespec){ d / 1000000000, d % 1000000000 };
}

/* There can't be a sleep with what the VF needs for it (no descriptor is left, or the limit is so low that ppoll() takes fewer than we have): a sleep
 * in the kernel alone takes nothing. HV_MOVED, or 0 where the kernel doesn't want one of them now. */
static int wait_there(struct state *st)
{
	unsigned refused = 0;

	hv_lock(&G.lock);
	for (unsigned i = 0; i < st->n; i++) {
		struct hv_sock *s = vf_entry(&st->ents[i]) ? st->ents[i].s : NULL;
		if (s != NULL && hv_demote_locked(s, HV_WHY_NO_WAIT, false) != 0)
			refused++;
		else if (s != NULL) /* not soon again */
			hv_stay(s, HV_WHY_NO_WAIT, 1000000000);
	}
	hv_unlock(&G.lock);
	if (refused == 0)
		return HV_MOVED;
	struct timespec ts = { 0, 1000000 };
	hv_sys_ppoll(NULL, 0, &ts, NULL);
	return 0;
}

/* A thread that was in the engine is cancelled: the preload layer has something to put in order, too. */
void (*hv_wait_cancelled)(void);
void hv_wait_gone(void)
{
	if (hv_wait_cancelled != NULL)
		hv_wait_cancelled();
}

struct sleep {
	struct state *st;
	struct hv_wakefd *wake;
};

/* The thread is cancelled in its sleep and won't come back. */
static void cancelled(void *arg)
{
	struct sleep *z = arg;

	hv_sleep_end();
	hv_lock(&G.lock);
	G.sleepers--;
	unlink_waiters(z->st);
	hv_wakefd_put(z->wake);
	if (G.sleepers != 0 && !G.armed)
		hv_ring_arm();
	hv_unlock(&G.lock);
	leave(z->st);
	hv_wait_gone();
}

/* Cancellation is asked for before and after the call as well; a pending one is acted upon here. */
static __attribute__((noinline)) int cancellable_ppoll(struct sleep *z, unsigned n, struct timespec *ts, const sigset_t *mask)
{
	int r, type;

	pthread_cleanup_push(cancelled, z);
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	r = (int)HV_SYS(SYS_ppoll, z->st->pfd, n, ts, mask, 8, 0);
	pthread_setcanceltype(type, NULL);
	pthread_cleanup_pop(0);
	return r;
}

static int sleep_once(struct state *st, int64_t deadline, const sigset_t *mask)
{
	bool moved = false;
	struct timespec ts = { 0, 0 };

	hv_lock(&G.lock);
	struct hv_wakefd *wake = hv_wakefd_get();
	if (wake == NULL) {
		hv_unlock(&G.lock);
		return wait_there(st);
	}
	link_waiters(st, wake);
	hv_ring_arm();
	hv_ring_poll(hv_now_ns()); /* what came before the arming */
	unsigned ready = ask_vf(st, &moved);
	int chan = G.vf != NULL ? hv_vf_channel_fd(G.vf) : -1;
	G.sleepers++;
	hv_unlock(&G.lock);

	int r = 0;
	if (ready == 0 && !moved) {
		unsigned n = st->npfd;
		st->pfd[n] = (struct pollfd){ wake->fd, POLLIN, 0 };
		st->pfd[n + 1] = (struct pollfd){ chan, POLLIN, 0 };
		ts = deadline != INT64_MAX ? left(deadline) : HV_LONG;
		HV_COUNT(sleeps);
		hv_sleep_begin(&ts);
		r = cancellable_ppoll(&(struct sleep){ st, wake }, n + 2, &ts, mask);
		hv_sleep_end();
	} else {
		for (unsigned k = 0; k < st->npfd; k++)
			st->pfd[k].revents = 0;
	}
	hv_lock(&G.lock);
	G.sleepers--;
	unlink_waiters(st);
	hv_wakefd_put(wake);
	if (r > 0 && st->pfd[st->npfd + 1].revents != 0 && G.vf != NULL && hv_vf_channel_fd(G.vf) == chan) {
		hv_vf_channel_ack(G.vf);
		G.armed = false;
	}
	if (r >= 0)
		hv_ring_poll(hv_now_ns());
	if (G.sleepers != 0 && !G.armed && hv_ring_arm()) /* others rely on the event that this thread has used up */
		hv_ring_poll(hv_now_ns());
	hv_unlock(&G.lock);
	if (r == -EINVAL && st->nw != 0) /* RLIMIT_NOFILE */
		return wait_there(st);
	return r < 0 ? r : 0;
}

static int wait_rounds(struct state *st, int64_t deadline, const sigset_t *mask)
{
	uint64_t start = hv_now_ns(), look = 0, budget = mask != NULL ? 0 : hv_spin_budget();
	uint32_t sig = hv_sig_count;
	bool slept = false;

	for (;;) {
		bool moved = false;
		enter(st);
		if (hv_trylock(&G.lock)) {
			hv_ring_poll(hv_now_ns());
			hv_unlock(&G.lock);
		}
		hv_lock(&G.lock);
		unsigned vf = ask_vf(st, &moved);
		hv_unlock(&G.lock);
		uint64_t now = hv_now_ns();
		if (moved) {
			leave(st);
			continue;
		}
		if (vf != 0 || now - look >= HV_KERNEL_LOOK_NS || look == 0) {
			look = now;
			int r = look_kernel(st, vf);
			if (r != 0) {
				hv_spin_learn(!slept, now - start);
				done(st);
				return r;
			}
		}
		if (deadline <= (int64_t)now) {
			done(st);
			return 0;
		}
		if (hv_sig_count != sig || hv_sig_kept) {
			done(st);
			return -EINTR;
		}
		if (!slept && now - start < budget) {
			leave(st);
			hv_cpu_relax();
			continue;
		}
		slept = true;
		int r = sleep_once(st, deadline, mask);
		if (r < 0) {
			done(st);
			return r;
		}
		/* answers of kernel descriptors in this round */
		for (unsigned k = 0; k < st->npfd; k++)
			if (st->pfd[k].revents != 0)
				look = 0;
		leave(st);
		if (sig != hv_sig_count && look != 0)
			continue; /* looks once more, then -EINTR */
	}
}

#define ON_STACK 32u

int hv_poll(struct hv_pollent *ents, unsigned n, int64_t deadline_ns, const sigset_t *mask)
{
	struct pollfd pfd[ON_STACK + 2];
	unsigned back[ON_STACK];
	struct hv_waiter w[ON_STACK];
	struct state st = { .ents = ents, .n = n, .pfd = pfd, .back = back, .w = w };

	if (n <= ON_STACK)
		return wait_rounds(&st, deadline_ns, mask);
	size_t a = (n + 2) * sizeof *st.pfd, b = n * sizeof *st.w, c = n * sizeof *st.back;
	uint8_t *m = hv_map(a + b + c);
	if (m == NULL)
		return -ENOMEM;
	st.w = (void *)m;
	st.pfd = (void *)(m + b);
	st.back = (void *)(m + b + a);
	int r = wait_rounds(&st, deadline_ns, mask);
	hv_unmap(m, a + b + c);
	return r;
}

/* A datagram may have come by the kernel's queue. */
static bool kernel_ready(struct hv_sock *s, uint32_t events, uint64_t now)
{
	struct pollfd p = { hv_sock_fd(s), (short)(events & 0xffff), 0 };
	struct timespec zero = { 0, 0 };

	bool any = hv_sys_ppoll(&p, 1, &zero, NULL) > 0;
	hv_kernel_looked(s->p, now, any);
	if (!any)
		return false;
	if ((p.revents & (POLLIN | POLLERR)) != 0)
		hv_kernel_has(s->p, true);
	return true;
}

/* The common case of one socket, without the bookkeeping of a set while it spins. */
int hv_wait_sock(struct hv_sock *s, uint32_t events, int64_t deadline_ns)
{
	uint64_t start = hv_now_ns(), now = start, budget = hv_spin_budget();
	uint32_t sig = hv_sig_count, ev = 0, turn = 0, seen = 0;

	do {
		if (hv_trylock(&G.lock)) {
			hv_ring_poll(now);
			if (HV_UNLIKELY(G.news != seen) || (turn & 15) == 0) {
				seen = G.news;
				bool vf = hv_sock_events(s, &ev);
				hv_unlock(&G.lock);
				if (!vf)
					return HV_MOVED;
				if ((ev & (events | EPOLLERR | EPOLLHUP)) != 0) {
					hv_spin_learn(true, 0);
					return 0;
				}
			} else {
				hv_unlock(&G.lock);
			}
		}
		if ((++turn & 15) != 0) /* a look costs less than the time of day */
			continue;
		if (!hv_sock_vf(s))
			return HV_MOVED;
		if (sig != hv_sig_count || hv_sig_kept)
			return -EINTR;
		now = hv_now_ns();
		if ((int64_t)now >= deadline_ns)
			return -EAGAIN;
		if (s->type != SOCK_STREAM && hv_kernel_due(s->p, now) && kernel_ready(s, events, now))
			return 0;
	} while (now - start < budget);

	struct hv_pollent e = { s, hv_sock_fd(s), (short)(events & 0xffff), 0 };
	if (e.fd < 0)
		return HV_MOVED;
	uint32_t keep = spin_ns;
	spin_ns = 0; /* it has spun */
	int r = hv_poll(&e, 1, deadline_ns, NULL);
	spin_ns = keep;
	hv_spin_learn(false, hv_now_ns() - start);
	if (!hv_sock_vf(s))
		return HV_MOVED;
	return r > 0 ? 0 : r == 0 ? -EAGAIN : r;
}
