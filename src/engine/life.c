/*
 * life.c - process life: start, fork, exit.
 *
 * fork: everything is given back to the kernel before, so that parent and child hold ordinary kernel sockets; sockets that existed then are
 * shared and stay in the kernel while they are (generation count, fork.c). The child forgets ring, thread and guard without touching the
 * device.
 */
#include "base/inside.h"
#include "engine/internal.h"

void hv_engine_init(void)
{
	G.pid = hv_sys_getpid();
	if (!hv_conf.enable || hv_conf.promote_calls < 0)
		atomic_store(&G.off, true);
}

void hv_engine_fork_prepare(void)
{
	hv_lock(&G.lock);
	hv_demote_all_locked(HV_WHY_FORK, false);
	hv_fork_line_prepare();
	hv_lock_held = 0; /* the lock stays taken; the flag is about signal handlers of this thread */
}

void hv_engine_fork_parent(void)
{
	hv_fork_line_parent(atomic_fetch_add(&G.fork_gen, 1) + 1);
	hv_unlock(&G.lock);
}

void hv_engine_fork_child(void)
{
	atomic_store(&G.lock.v, 0);
	hv_lock_held = 0;
	hv_mem_fork_child();
	G.pid = hv_sys_getpid();
	hv_fork_line_child(atomic_fetch_add(&G.fork_gen, 1) + 1);
	if (G.vf != NULL)
		hv_vf_child_forget(G.vf);
	hv_handoff_child();
	G.vf = NULL;
	if (G.cap != NULL)
		hv_capture_child(G.cap);
	G.cap = NULL;
	G.mon = NULL; /* its descriptor is close-on-exec; the library's object is the parent's business */
	G.svc_running = false;
	if (G.ctl_fd > 0)
		hv_sys_close(G.ctl_fd);
	G.ctl_fd = 0;
	for (struct hv_wakefd *w = G.all_wakefds; w != NULL; w = w->all_next)
		hv_sys_close(w->fd);
	G.wakefds = G.all_wakefds = NULL;
	memset(&G.env, 0, sizeof G.env);
	memset(G.hash, 0, sizeof G.hash);
	G.udp_wild = NULL;
	atomic_store(&G.paused, G.powerless); /* other threads of the parent's */
	/* What the kernel refused just before the fork is the parent's: here it is a socket that can do nothing, and the parent's hand-off
	 * frees it for both. */
	for (struct hv_sock *s = G.vf_socks, *next; s != NULL; s = next) {
		next = s->p->v_next;
		if (s->type == SOCK_STREAM && s->p->orphan_us != 0) { /* or the peer would not see its end */
			hv_sys_close(s->p->fds[0]);
			continue;
		}
		for (struct hv_epitem *it = s->p->items; it != NULL; it = it->s_next) {
			atomic_fetch_sub(&it->ep->vf_items, 1);
			it->in_kernel = true; /* the set is the parent's as well */
		}
		atomic_store(&s->tier, HV_TIER_KERNEL);
		atomic_store(&s->pinned, true);
		s->p->tcb = NULL;
	}
	G.orphans = 0;
	G.vf_socks = NULL;
	G.vf_count = 0;
	G.blocked = NULL;
	G.heap_n = 0;
	G.sleepers = 0;
	G.armed = false;
	atomic_store(&G.vf_users, 0);
	G.handoff_failed = false;
	atomic_store(&G.next_open_ns, 0);
	atomic_store(&G.ring, HV_RING_CLOSED);
	hv_stats_fork_child(); /* it writes its own summary */
}

void hv_engine_stop(enum hv_why why)
{
	atomic_store(&G.off, true);
	hv_demote_all(why);
}

static bool may_move(void)
{
	struct { uint32_t version; int pid; } h = { 0x20080522u, 0 }; /* _LINUX_CAPABILITY_VERSION_3 */
	struct { uint32_t effective, permitted, inheritable; } d[2] = { { 0, 0, 0 } };

	return HV_SYS(SYS_capget, &h, d, 0, 0, 0, 0) >= 0 && (d[0].effective & 1u << 12 /* CAP_NET_ADMIN */) != 0;
}

void hv_engine_privileges_change(void)
{
	hv_engine_pause(HV_WHY_PRIVILEGE);
}

void hv_engine_privileges_changed(void)
{
	bool powerless = !may_move(), was = atomic_exchange(&G.powerless, powerless);

	atomic_fetch_add(&G.paused, (uint32_t)powerless - (uint32_t)was - 1u);
}

void hv_engine_exit(void)
{
	static atomic_flag once = ATOMIC_FLAG_INIT;

	if (G.pid != hv_sys_getpid()) /* a vforked child that ends: the connections are its parent's */
		return;
	if (atomic_flag_test_and_set(&once))
		return;
	atomic_store(&G.off, true);
	if (hv_lock_held != 0) /* a crash in the engine, whose handler ends the process: what it was doing nobody can finish */
		return;
	hv_engine_pause(HV_WHY_EXIT);
	hv_summary_write();
}

/* What is still parked when the program ends is gone without a word to its peer: worth a wait, but a bounded one. A thread that is in the middle of a promotion must not be
 * cut short either. */
void hv_engine_pause(enum hv_why why)
{
	atomic_fetch_add(&G.paused, 1);
	for (unsigned i = 0; i < 200; i++) {
		hv_lock(&G.lock);
		bool all = hv_demote_all_locked(why, false) == 0 && atomic_load(&G.vf_users) == 0;
		hv_unlock(&G.lock);
		if (all)
			break;
		hv_sleep_ms(5);
	}
}

void hv_engine_resume(void)
{
	atomic_fetch_sub(&G.paused, 1);
}

/* The interrupted thread may be in malloc(), and another one, which holds the lock, may wait for that: so a bounded wait, and nothing is freed. */
void hv_engine_dying(void)
{
	bool got = false;

	if (G.pid != hv_sys_getpid() || hv_lock_held != 0)
		return;
	atomic_fetch_add(&G.paused, 1);
	for (unsigned i = 0; i < 500 && !(got = hv_trylock(&G.lock)); i++)
		hv_sleep_ms(1);
	if (got) {
		G.dying = true;
		hv_demote_all_locked(HV_WHY_EXIT, false);
		G.dying = false;
		hv_unlock(&G.lock);
		for (unsigned i = 0; i < 50 && atomic_load(&G.vf_users) != 0; i++)
			hv_sleep_ms(1);
	}
	atomic_fetch_sub(&G.paused, 1);
}
