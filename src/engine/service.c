/*
 * service.c - the service thread: opens the ring, watches the VF, makes progress while the program computes, runs timers, closes the ring.
 *
 * It exists from the moment a socket is hot until nothing has been on the VF for a while or the VF is lost. Three gaits:
 * - busy: application threads poll; it looks every 2-8 ms whether they still do (dead-man switch);
 * - delegated: an application thread sleeps on the completion channel; a slow look;
 * - alone: it has armed the completion channel and sleeps on it, the timers and the monitor. An idle process wakes nobody.
 */
#include <limits.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "base/inside.h"
#include "engine/internal.h"

struct hv_global G;

#define IDLE_CLOSE_US 10000000u
#define STACK (512u << 10)

void hv_service_kick(void)
{
	uint64_t one = 1;

	if (atomic_load_explicit(&G.svc_running, memory_order_acquire))
		hv_sys_write(G.ctl_fd, &one, sizeof one);
}

int hv_engine_fds(int *fds, int n)
{
	int k = 0;

	hv_lock(&G.lock);
	if (G.ctl_fd > 0 && k < n)
		fds[k++] = G.ctl_fd;
	for (struct hv_wakefd *w = G.all_wakefds; w != NULL && k < n; w = w->all_next)
		fds[k++] = w->fd;
	for (struct hv_epoll *ep = G.evs; ep != NULL && k < n; ep = ep->ev_next)
		fds[k++] = ep->evfd;
	if (G.vf != NULL && k + 2 <= n) {
		fds[k++] = hv_vf_channel_fd(G.vf);
		fds[k++] = hv_vf_async_fd(G.vf);
	}
	if (G.mon != NULL && k < n)
		fds[k++] = hv_monitor_fd(G.mon);
	if (G.cap != NULL && k < n)
		fds[k++] = hv_capture_fd(G.cap);
	for (struct hv_sock *s = G.orphans != 0 ? G.vf_socks : NULL; s != NULL && k < n; s = s->p->v_next)
		if (s->type == SOCK_STREAM && s->p->orphan_us != 0)
			fds[k++] = s->p->fds[0];
	if (k < n)
		k += hv_fork_fds(fds + k, n - k);
	if (k < n)
		k += hv_handoff_fds(fds + k, n - k);
	hv_unlock(&G.lock);
	return k < n ? k : n;
}

/* ---- opening ---- */

static bool wanted(const struct hv_vf_pair *p)
{
	return hv_conf.device[0] == '\0' || strcmp(hv_conf.device, p->upper_name) == 0 || strcmp(hv_conf.device, p->lower_name) == 0;
}

/* The pair for a netdev; 0 = any (unconnected UDP): the first usable one. */
static enum hv_vf_why find_pair(int upper, struct hv_vf_pair *pair)
{
	if (upper != 0) {
		enum hv_vf_why w = hv_vf_discover(upper, pair);
		return w == HV_VF_OK && !wanted(pair) ? HV_VF_NO_DEVICE : w;
	}
	enum hv_vf_why best = HV_VF_NO_DEVICE;
	struct if_nameindex *list = if_nameindex();
	for (struct if_nameindex *i = list; i != NULL && i->if_index != 0; i++) {
		if (i->if_index == 1)
			continue;
		enum hv_vf_why w = hv_vf_discover((int)i->if_index, pair);
		/* Of a pair, the upper one: the lower one alone looks like a bare NIC. */
		if (w == HV_VF_OK && wanted(pair) && !pair->bare) {
			best = HV_VF_OK;
			break;
		}
		if (w != HV_VF_NO_DEVICE && w != HV_VF_OK)
			best = w;
	}
	if (best != HV_VF_OK) {
		for (struct if_nameindex *i = list; i != NULL && i->if_index != 0 && best != HV_VF_OK; i++)
			if (i->if_index != 1 && hv_vf_discover((int)i->if_index, pair) == HV_VF_OK && wanted(pair))
				best = HV_VF_OK;
	}
	if_freenameindex(list);
	return best;
}

static void open_failed(enum hv_vf_why why, int err, uint64_t retry_ms)
{
	G.open_why = why;
	G.open_err = err;
	G.open_backoff_ns = G.open_backoff_ns == 0 ? retry_ms * 1000000u : G.open_backoff_ns * 2;
	uint64_t cap = why == HV_VF_NO_LIBRARY || why == HV_VF_EPERM || why == HV_VF_MEMLOCK ? 60000000000u : why == HV_VF_BUSY ? 2000000000u : 500000000u;
	if (G.open_backoff_ns > cap)
		G.open_backoff_ns = cap;
	atomic_store(&G.next_open_ns, hv_now_ns() + G.open_backoff_ns);
}

static bool open_ring(void)
{
	struct hv_vf_pair pair;
	struct hv_vf *vf = NULL;
	struct hv_monitor *mon = NULL;
	struct hv_capture *cap = NULL;
	const char *what = NULL;
	uint64_t left = 0;
	int err = 0;

	memset(&pair, 0, sizeof pair);
	enum hv_vf_why w = find_pair(G.want_upper, &pair);
	bool present = w == HV_VF_OK && pair.running;
	if (!hv_hold_ready(&G.hold, present, hv_now_us(), (uint64_t)hv_conf.hold_ms * 1000u, (uint64_t)hv_conf.hold_max_ms * 1000u, &left)) {
		if (w == HV_VF_OK && !present)
			w = HV_VF_NOT_RUNNING;
		G.open_why = w;
		if (present) {
			atomic_store(&G.next_open_ns, hv_now_ns() + (left < 1000 ? 1000 : left) * 1000u);
			hv_log(HV_LOG_DEBUG, "the VF of %s is back; using it in %llu ms if it stays", pair.upper_name, (unsigned long long)(left / 1000u));
		} else {
			open_failed(w, 0, 50);
			hv_log(HV_LOG_DEBUG, "no VF to use: %s", hv_vf_why_text(w));
		}
		return false;
	}
	int r = hv_handoff_init(hv_conf.guard, &what);
	if (r < 0) {
		G.handoff_failed = true;
		G.handoff_what = what;
		hv_log(HV_LOG_INFO, "connections stay in the kernel: %s is needed to move them (error %d); run as root or grant it with setcap or AmbientCapabilities",
		    what != NULL ? what : "a privilege", -r);
		open_failed(HV_VF_EPERM, -r, 60000);
		return false;
	}
	struct hv_vf_limits lim = { .mem_bytes = (uint32_t)(hv_conf.memory_mb > 4095 ? 4095 : hv_conf.memory_mb) << 20,
		.rx_slots = (uint32_t)hv_conf.rx_slots,
		.tx_slots = (uint32_t)hv_conf.tx_slots,
		.hugepages = hv_conf.hugepages != 0 };
	w = hv_vf_open(&vf, &pair, &lim, &err);
	if (w != HV_VF_OK) {
		hv_log(HV_LOG_INFO, "the VF of %s can't be used: %s (errno %d)", pair.upper_name, hv_vf_why_text(w), err);
		open_failed(w, err, w == HV_VF_NO_LIBRARY ? 10000 : 100);
		return false;
	}
	r = hv_monitor_open(&mon, pair.upper, pair.lower, &what);
	if (r < 0) {
		hv_log(HV_LOG_INFO, "the VF of %s is not used: %s is needed to see it go (error %d); install libnl-3-200", pair.upper_name, what != NULL ? what : "libnl-3", -r);
		hv_vf_close(vf, false);
		open_failed(HV_VF_OTHER, -r, 60000);
		return false;
	}
	if ((r = hv_capture_open(&cap, pair.upper, &what)) < 0) {
		cap = NULL; /* a failover then costs a retransmission timeout, and so does a path that gets narrower */
		hv_log(HV_LOG_INFO, "packets that come by %s can't be captured: %s (error %d)", pair.upper_name, what != NULL ? what : "a packet socket", -r);
	}
	hv_lock(&G.lock);
	G.pair = pair;
	G.cap = cap;
	G.vf = vf;
	G.mon = mon;
	memset(&G.env, 0, sizeof G.env);
	hv_vf_env_init(vf, &G.env);
	G.env.tso_max = hv_vf_tso_max(vf);
	hv_vf_refill(vf, &G.env);
	G.armed = false;
	G.blocked = NULL;
	G.open_why = HV_VF_OK;
	G.open_backoff_ns = 0;
	G.lost_cause = HV_LOSS_NONE;
	atomic_fetch_add(&G.epoch, 1);
	atomic_store(&G.ring, HV_RING_READY);
	HV_COUNT(ring_opens);
	hv_journal("vf-ready", NULL, pair.lower_name, 0);
	hv_unlock(&G.lock);
	hv_log(HV_LOG_INFO, "VF %s of %s is ready (device %s, guard %s%s)", pair.lower_name, pair.upper_name, pair.ibname, hv_handoff_guard_kind(),
	    pair.bare ? ", no partner to fail over to" : "");
	return true;
}

/* ---- losing it ---- */

void hv_ring_failover(enum hv_loss cause)
{
	int ready = HV_RING_READY;
	uint64_t t0 = hv_now_ns();

	if (!atomic_compare_exchange_strong(&G.ring, &ready, HV_RING_LOST))
		return; /* first signal of the epoch has won */
	hv_exception_poll(); /* what the synthetic path has brought meanwhile is ours still */
	hv_lock(&G.lock);
	G.lost_cause = cause;
	G.lost_ns = t0;
	uint32_t n = G.vf_count;
	if (G.mon != NULL)
		hv_monitor_signal(G.mon, cause);
	hv_hold_lost(&G.hold, t0 / 1000u);
	hv_ring_drain(); /* what had arrived before the end is still readable */
	hv_udp_resend_unfinished();
	hv_demote_all_locked(HV_WHY_VF_LOST, true);
	hv_unlock(&G.lock);
	hv_exception_poll(); /* and what came during the hand-off is the kernel's */
	uint64_t ns = hv_now_ns() - t0;
	HV_COUNT(ring_losses);
	HV_ADD(failover_socks, n);
	hv_stats_max(&S.failover_ns_max, ns);
	hv_lock(&G.lock);
	hv_journal("vf-lost", NULL, hv_loss_text(cause), ns);
	hv_unlock(&G.lock);
	hv_log(HV_LOG_INFO, "VF %s lost (%s): %u sockets moved to the kernel in %llu us", G.pair.lower_name, hv_loss_text(cause), n, (unsigned long long)(ns / 1000u));
}

static void close_ring(bool dead)
{
	/* Sockets that the kernel has not taken back yet still hold the ring's memory; their timer retries. */
	for (;;) {
		hv_lock(&G.lock);
		uint32_t n = G.vf_count;
		if (n != 0)
			hv_timer_run(hv_now_us());
		n = G.vf_count;
		hv_unlock(&G.lock);
		if (n == 0 && atomic_load(&G.vf_users) == 0)
			break;
		struct timespec ts = { 0, 5000000 };
		hv_sys_ppoll(NULL, 0, &ts, NULL);
	}
	hv_lock(&G.lock);
	struct hv_vf *vf = G.vf;
	struct hv_monitor *mon = G.mon;
	struct hv_capture *cap = G.cap;
	G.vf = NULL;
	G.mon = NULL;
	G.cap = NULL;
	memset(&G.env, 0, sizeof G.env);
	hv_unlock(&G.lock);
	hv_vf_close(vf, dead);
	hv_monitor_close(mon);
	hv_capture_close(cap);
}

/* ---- the loop ---- */

enum gait { BUSY, DELEGATED, ALONE };

static enum hv_loss look_at_events(struct pollfd *pfd)
{
	struct hv_vf_async ev;
	enum hv_loss cause = HV_LOSS_NONE;

	if (pfd[1].revents != 0)
		cause = hv_monitor_read(G.mon);
	if (cause == HV_LOSS_NONE && pfd[2].revents != 0) {
		while (hv_vf_async_next(G.vf, &ev)) {
			hv_log(HV_LOG_DEBUG, "verbs event: %s", ev.text);
			if (ev.fatal || ev.qp_fatal)
				cause = HV_LOSS_DEVICE_FATAL;
			else if (ev.port_down && cause == HV_LOSS_NONE)
				cause = HV_LOSS_PORT_ERR;
		}
		if (cause == HV_LOSS_NONE && (pfd[2].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0)
			cause = HV_LOSS_DEVICE_FATAL;
	}
	if (cause == HV_LOSS_NONE && (pfd[3].revents & (POLLERR | POLLNVAL)) != 0)
		cause = HV_LOSS_CHANNEL;
	return cause;
}

static void run(void)
{
	uint32_t seen = atomic_load(&G.polls);
	uint64_t tick = 2000, idle_since = hv_now_us();
	bool chan = false;

	for (;;) {
		uint64_t now = hv_now_us(), wake, oldest;
		enum gait gait;

		hv_lock(&G.lock);
		if (chan) {
			hv_vf_channel_ack(G.vf);
			G.armed = false;
			chan = false;
		}
		if (atomic_load(&G.polls) != seen && G.vf_count != 0) {
			gait = BUSY;
			tick = tick < 8000 ? tick + 1000 : tick;
			if (hv_timer_next() <= now)
				hv_ring_poll(now * 1000u);
		} else {
			hv_ring_poll(now * 1000u);
			gait = G.sleepers != 0 ? DELEGATED : ALONE;
			if (hv_ring_arm())
				hv_ring_poll(hv_now_ns());
			tick = 2000;
		}
		seen = atomic_load(&G.polls);
		hv_vf_flow_sweep(G.vf);
		bool more = HV_UNLIKELY(atomic_exchange(&G.relief, false)) && hv_relief();
		if (more)
			atomic_store(&G.relief, true);
		bool used = G.vf_count != 0;
		if (used)
			idle_since = now;
		oldest = hv_vf_tx_oldest(G.vf);
		if (oldest != 0) {
			hv_vf_poll_tx(G.vf, &G.env);
			oldest = hv_vf_tx_oldest(G.vf);
		}
		wake = hv_timer_next();
		hv_unlock(&G.lock);

		if (oldest != 0) {
			uint64_t due = oldest / 1000u + (uint64_t)hv_conf.watchdog_ms * 1000u;
			if (now >= due) {
				hv_ring_failover(HV_LOSS_TX_WATCHDOG);
				return;
			}
			wake = due < wake ? due : wake;
		}
		if (!used) {
			if (now - idle_since >= IDLE_CLOSE_US && atomic_load(&G.vf_users) == 0)
				return;
			wake = idle_since + IDLE_CLOSE_US < wake ? idle_since + IDLE_CLOSE_US : wake;
		}
		if (gait == BUSY)
			wake = now + tick; /* whoever polls runs the timers */
		if (gait == DELEGATED && now + 20000 < wake)
			wake = now + 20000;
		if (hv_handoff_tick(now) && now + 100000 < wake)
			wake = now + 100000;
		if (more)
			wake = now;
		/* Sooner deadlines wake this thread, but not while others poll anyway. */
		atomic_store_explicit(&G.svc_wake_us, gait == BUSY ? 0 : wake, memory_order_relaxed);

		struct pollfd pfd[5] = { { G.ctl_fd, POLLIN, 0 }, { hv_monitor_fd(G.mon), POLLIN, 0 }, { hv_vf_async_fd(G.vf), POLLIN, 0 },
			{ gait == ALONE ? hv_vf_channel_fd(G.vf) : -1, POLLIN, 0 }, { G.cap != NULL ? hv_capture_fd(G.cap) : -1, POLLIN, 0 } };
		now = hv_now_us();
		uint64_t us = wake > now ? wake - now : 0;
		struct timespec ts = { (time_t)(us / 1000000u), (long)(us % 1000000u) * 1000 };
		int r = hv_sys_ppoll(pfd, 5, wake == UINT64_MAX ? NULL : &ts, NULL);
		if (r <= 0)
			continue;
		if (pfd[0].revents != 0) {
			uint64_t v;
			hv_sys_read(G.ctl_fd, &v, sizeof v);
		}
		enum hv_loss cause = look_at_events(pfd);
		if (cause != HV_LOSS_NONE) {
			hv_ring_failover(cause);
			return;
		}
		if (pfd[4].revents != 0)
			hv_exception_poll();
		chan = pfd[3].revents != 0;
	}
}

static void *service_main(void *arg)
{
	(void)arg;
	hv_inside_enter();
	prctl(PR_SET_NAME, "hvaccel", 0, 0, 0);
	bool opened = open_ring();
	if (opened) {
		run();
		bool lost = atomic_load(&G.ring) == HV_RING_LOST;
		if (!lost) { /* nothing has used it for a while */
			int ready = HV_RING_READY;
			if (!atomic_compare_exchange_strong(&G.ring, &ready, HV_RING_LOST))
				lost = true;
		}
		close_ring(lost);
		atomic_store(&G.next_open_ns, lost ? hv_now_ns() + 20000000u : 0);
	}
	hv_inside_leave();
	hv_lock(&G.lock);
	G.svc_running = false;
	hv_unlock(&G.lock);
	atomic_store(&G.ring, HV_RING_CLOSED);
	return NULL;
}

bool hv_service_start(int upper)
{
	int closed = HV_RING_CLOSED;
	pthread_attr_t a;
	sigset_t all, old;

	if (!atomic_compare_exchange_strong(&G.ring, &closed, HV_RING_OPENING))
		return true;
	G.want_upper = upper;
	if (G.ctl_fd <= 0) {
		int fd = hv_sys_eventfd(0, 04000 | 02000000);
		if (fd < 0) {
			atomic_store(&G.ring, HV_RING_CLOSED);
			return false;
		}
		hv_lock(&G.lock);
		G.ctl_fd = hv_sys_high(fd);
		hv_unlock(&G.lock);
	}
	hv_inside_enter();
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, STACK);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	G.svc_running = true;
	int r = pthread_create(&G.svc, &a, service_main, NULL);
	pthread_attr_destroy(&a);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	hv_inside_leave();
	if (r != 0) {
		G.svc_running = false;
		open_failed(HV_VF_OTHER, r, 1000);
		atomic_store(&G.ring, HV_RING_CLOSED);
		return false;
	}
	return true;
}
