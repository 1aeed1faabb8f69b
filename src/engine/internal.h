/*
 * internal.h - the engine's own state. Included by the files of src/engine only.
 *
 * One ring per process, one lock (G.lock) over everything here that isn't atomic or said to belong to the service thread. Order: G.lock is
 * the only lock; system calls made under it are short ones (epoll_ctl, eventfd write, the hand-off's sequence).
 */
#ifndef HV_ENGINE_INTERNAL_H
#define HV_ENGINE_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/conf.h"
#include "base/log.h"
#include "base/sys.h"
#include "engine/engine.h"
#include "engine/lock.h"
#include "failover/capture.h"
#include "failover/handoff.h"
#include "failover/monitor.h"
#include "failover/route.h"
#include "stack/frame.h"
#include "stack/tcp.h"
#include "stack/udp.h"
#include "vf/vf.h"

#define HV_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define HV_LIKELY(x) __builtin_expect(!!(x), 1)

/* A thread that sleeps for readiness of a socket; lives on that thread's stack, linked under G.lock. */
struct hv_waiter {
	struct hv_waiter *next, **prev;
	struct hv_wakefd *wake;
	uint32_t events;
};
struct hv_wakefd { /* pooled eventfds: no per-thread state to destroy */
	struct hv_wakefd *next;               /* in the pool */
	struct hv_wakefd *all_next;
	int fd;
	_Atomic bool signalled;
};

/* Membership of a socket in an epoll set, for sockets of either tier. */
struct hv_epitem {
	struct hv_epitem *s_next, **s_prev;   /* of the socket */
	struct hv_epitem *e_next, **e_prev;   /* of the epoll set */
	struct hv_epitem *r_next, **r_prev;   /* ready list, when queued */
	struct hv_epoll *ep;
	struct hv_sock *s;
	int fd;
	uint32_t events;                      /* as given by the program */
	uint64_t data;
	bool in_kernel, queued, disarmed, edge;
	uint32_t swallow;                     /* edges that the program knew before EPOLL_CTL_ADD at demotion raised them again */
};

struct hv_epoll {
	_Atomic uint32_t refs;
	_Atomic uint32_t vf_items;            /* members that are on the VF now */
	int epfd;                             /* the descriptor it was made with; callers pass theirs */
	_Atomic int evfd;                     /* -1 until a member is promoted; waiters look at it without the lock */
	struct hv_epoll *ev_next, **ev_prev;  /* G.evs */
	bool chan_in;                         /* completion channel is in the kernel set */
	uint32_t chan_epoch;
	_Atomic bool nested;
	_Atomic uint32_t sleepers;
	_Atomic bool signalled;
	struct hv_epitem *items;
	struct hv_epitem *ready, **ready_tail;
	uint32_t fork_gen;                    /* as of a socket */
	uint32_t swallows;                    /* items with swallow != 0 */
	_Atomic uint64_t kernel_seen_ns;      /* these three are hints and need no lock: waiters that overlap look into the kernel's set once more or once less */
	_Atomic uint32_t turns;
	_Atomic bool kernel_first;            /* its turn had come, but the VF's members had filled the caller's array */
	bool dead;
};

#define HV_SOCK_FDS 6

struct hv_udp_dst { /* where a datagram for this destination goes; valid for a second */
	struct hv_tuple tuple;
	uint8_t l2[18];
	uint8_t l2_len;
	bool over_vf;
	uint32_t mtu;
	uint64_t until_ns;
};

/* TCP_INFO counts that the present owner of the connection doesn't know: the kernel's restart at each hand-off, and so do the stack's. */
struct hv_tcp_counts {
	uint64_t bytes_acked, bytes_received, bytes_sent, bytes_retrans;
	uint32_t segs_in, segs_out, total_retrans, data_segs_in, data_segs_out, delivered, rcv_ooopack, advmss;
};

/* The first three cache lines are what the data path touches. What only one protocol needs is at the end, in one place: look at s->type
 * before. */
struct hv_sock_priv {
	struct hv_sock *s;
	struct hv_tcb *tcb;                   /* NULL: UDP, or in the kernel */
	struct hv_sock *h_next;               /* demux bucket */
	struct hv_waiter *waiters;
	struct hv_epitem *items;
	struct hv_sock *w_next;               /* work list: touched in this batch */
	unsigned acts;
	uint32_t hash;
	bool on_work, on_blocked;
	bool demote_pending;                  /* the kernel refused it back for now; retried */
	bool pend_lost;
	bool slow;                            /* gave the ring's buffers back by force: promoted again only when it has read */
	_Atomic bool leaky;                   /* has or had a name that isn't close-on-exec */
	bool opt_pin;
	struct hv_tuple tuple;
	uint32_t heap_idx;                    /* timers; 0 = not in the heap */
	uint64_t heap_key;
	uint64_t active_us;
	uint64_t settle_us, next_retry_us;
	uint64_t path_us;                     /* TCP: when the kernel is asked again how it would send */
	uint8_t *aux;                         /* TCP: unread octets that came with the promotion */
	uint64_t vf_rx_octets, vf_tx_octets, vf_rx_calls, vf_tx_calls;
	/* ---- */
	_Atomic int fds[HV_SOCK_FDS];         /* descriptors of it in this process, -1 = free; written with the lock held */
	uint64_t cookie;                      /* SO_COOKIE at birth: is the fd still ours? */
	uint64_t backoff_ns;
	_Atomic uint64_t next_try_ns, promoted_ns; /* written by whoever moves it; threads that would like to promote it look without the lock, and then claim it */
	enum hv_why pend_why;
	struct hv_sock *v_next, **v_prev;     /* G.vf_socks */
	struct hv_sock *b_next;               /* waits for SQ room */
	struct hv_vf_flow *flow;
	struct hv_buf *pend, **pend_tail;     /* frames that came while MOVING */
	uint32_t pend_count;
	uint32_t pass;                        /* of hv_demote_all_locked() that has been here */
	uint32_t events_before;               /* readiness just before a demotion */
	uint32_t fork_gen;                    /* no fork up to that one shares it */
	_Atomic uint32_t verified;            /* each fork up to this one found it close-on-exec */
	uint32_t promotes;
	union {
		struct { /* TCP */
			struct hv_park park;
			size_t aux_len;
			uint8_t *late;        /* octets that the kernel took after the freeze and that the stack has no room for yet */
			uint32_t late_seq, late_len;
			uint64_t orphan_us;   /* closed by the program, not taken back by the kernel yet: held by our descriptor */
			uint64_t held[2];     /* opt.c: rows of its table that keep the socket in the kernel now */
			int user_clamp;       /* the program's TCP_WINDOW_CLAMP, 0 none */
			int8_t cc;            /* the program's TCP_CONGESTION, HV_TCP_CC_* */
			bool cc_set;
			uint16_t refused;     /* by the kernel, how often in succession */
			struct hv_tcp_counts past;
			uint8_t tcp_end[0];
		};
		struct { /* UDP */
			struct hv_udp udp;
			uint64_t alone_us;    /* when to look whether others have its port too, 0: they can't */
			uint64_t k_err_ns;    /* last look for a pending error */
			/* These three are hints for and from threads that wait without the lock: a value missed costs a look. */
			_Atomic uint64_t k_seen_ns, k_gap_ns; /* looks into the kernel's queue: last; how far apart, wider while in vain */
			_Atomic bool k_ready; /* look into the kernel's queue first */
			bool k_drain;         /* the same, until it has been found empty once */
			bool vf_peeked;       /* the program has seen the front of our queue (MSG_PEEK, FIONREAD): that one is next */
			uint8_t cmsgs;        /* HV_CM_* that recvmsg() makes */
			uint16_t ip_id;
			int bound_dev;
			uint32_t k_turn, dst_turn;
			struct hv_udp_dst dst[4];
			uint8_t udp_end[0];
		};
	};
};
#define HV_SOCK_SIZE(type) (sizeof(struct hv_sock) + ((type) == SOCK_STREAM ? offsetof(struct hv_sock_priv, tcp_end) : \
	offsetof(struct hv_sock_priv, udp_end)))
_Static_assert(offsetof(struct hv_sock_priv, fds) == 192, "three cache lines for the data path");
_Static_assert(HV_SOCK_SIZE(SOCK_STREAM) <= 704, "memory of each TCP socket, accelerated or not, without its TCB");

enum hv_ring_state { HV_RING_CLOSED, HV_RING_OPENING, HV_RING_READY, HV_RING_LOST };

#define HV_HASH 4096u

struct hv_global {
	struct hv_lock lock;
	_Atomic int ring;                     /* enum hv_ring_state */
	_Atomic bool off;                     /* child after fork, exit, or disabled: promote nothing */
	bool dying;                           /* in hv_engine_dying() */
	_Atomic uint32_t epoch;               /* of the ring; odd numbers never reused */
	struct hv_vf *vf;
	struct hv_vf_pair pair;
	struct hv_env env;
	struct hv_tcp_counters tcp;
	_Atomic uint32_t paused;              /* nothing may be promoted: calls in progress that change privileges or end the program, and one more while the process has too few */
	_Atomic bool powerless;
	_Atomic uint32_t vf_users;            /* control calls in progress without the lock */
	struct hv_sock *hash[HV_HASH];
	struct hv_sock *udp_wild;             /* unconnected UDP: few, list by h_next */
	uint32_t demux_gen;                   /* what was found in these two is stale when it has changed */
	struct hv_recent {                    /* whose the last frame was, by its octets */
		uint64_t addrs;
		uint32_t ports, gen;          /* as of demux_gen */
		struct hv_sock *s;            /* NULL: none */
		struct hv_tuple tuple;
	} recent;
	struct hv_sock *vf_socks;
	uint32_t vf_count, orphans, pass;
	struct hv_sock *blocked, **blocked_tail; /* want to send, SQ was full */
	/* timers */
	struct hv_sock **heap;
	uint32_t heap_n, heap_cap;
	_Atomic uint64_t svc_wake_us;
	/* poll bookkeeping */
	uint64_t now_ns;                      /* hv_clock() */
	_Atomic uint32_t polls;
	uint32_t news;                        /* changes whenever a poll brought something: no need to ask a socket before */
	bool armed;                           /* a completion event will come */
	_Atomic bool relief;                  /* the service thread has been asked for relief.c */
	uint32_t sleepers;                    /* threads asleep on the completion channel */
	/* opening */
	struct hv_hold hold;
	_Atomic uint64_t next_open_ns;
	uint64_t open_backoff_ns;
	_Atomic int open_why;                 /* enum hv_vf_why */
	int open_err;
	int want_upper;
	/* service thread */
	pthread_t svc;
	_Atomic bool svc_running;             /* set after ctl_fd, so who sees it may kick */
	int ctl_fd;                           /* eventfd, kept once it is there; set with the lock held */
	struct hv_monitor *mon;
	struct hv_capture *cap;               /* NULL: none; set and cleared under the lock, read by the service thread */
	enum hv_loss lost_cause;
	uint64_t lost_ns;
	struct hv_wakefd *wakefds, *all_wakefds;
	struct hv_epoll *evs;                 /* sets that have an eventfd */
	uint8_t *scratch;
	size_t scratch_len;
	uint64_t last_barrier_us;
	_Atomic bool handoff_failed;
	const char *handoff_what;
	_Atomic uint32_t fork_gen;
	int pid;                              /* a vforked child runs in this memory with another pid */
};
extern struct hv_global G;


/* Around the system call of a sleep; ts: its timeout, never NULL. A signal before the call finds hv_sleep and takes the time out of it, one
 * in the call ends it: none is slept through. */
#define HV_LONG ((struct timespec){ 1 << 30, 0 })
static inline void hv_sleep_begin(volatile struct timespec *ts)
{
	hv_sleep = ts;
	atomic_signal_fence(memory_order_seq_cst);
	if (hv_sig_kept)
		ts->tv_sec = ts->tv_nsec = 0;
}
static inline void hv_sleep_end(void)
{
	atomic_signal_fence(memory_order_seq_cst);
	hv_sleep = NULL;
}

/* mem.c: fixed-size objects from mmap, never returned to the system; safe without malloc. */
void *hv_obj_alloc(size_t size);
void hv_obj_free(void *p, size_t size);
void hv_mem_fork_child(void);
void *hv_map(size_t len);
void hv_unmap(void *p, size_t len);
uint8_t *hv_scratch(size_t len); /* G.lock held; grows; contents lost at the next call */

/* ring.c, lock held */
/* Lock held. Whoever looked at the time before it got the lock may come after somebody who looked later: for the stack time doesn't go back. (A round
 * trip of -1 us was one of 120 s.) Told of each time at which something is sent or polled; returns the latest. */
static inline uint64_t hv_clock(uint64_t ns)
{
	if ((int64_t)(ns - G.now_ns) > 0)
		G.now_ns = ns;
	return G.now_ns;
}
unsigned hv_ring_poll(uint64_t now_ns);                      /* frames taken; 0 = the queue was empty */
void hv_ring_drain(void);                                    /* everything that has completed by now */
void hv_sock_pump(struct hv_sock *s, uint64_t now_us);       /* send what the TCB wants to send */
void hv_sock_apply(struct hv_sock *s, unsigned acts, uint64_t now_us);
void hv_notify(struct hv_sock *s, uint32_t events);
void hv_demux_add(struct hv_sock *s);
void hv_demux_del(struct hv_sock *s);
struct hv_sock *hv_demux_find(const struct hv_tuple *t);
void hv_buf_give(struct hv_buf *b);
bool hv_ring_arm(void);                                      /* true: armed (or was) */
/* One frame to a TCB or UDP queue; used for pending frames too. */
void hv_frame_to_sock(struct hv_sock *s, struct hv_buf *b, struct hv_frame *f, bool csum_ok, uint64_t now_us);

/* relief.c, lock held */
bool hv_relief_wanted(void);
bool hv_relief(void);

/* timer.c, lock held */
bool hv_timer_reserve(void);                         /* for one socket more */
void hv_timer_update(struct hv_sock *s, uint64_t key_us);
void hv_timer_del(struct hv_sock *s);
void hv_timer_run(uint64_t now_us);
uint64_t hv_sock_deadline(const struct hv_sock *s);

/* promote.c / demote.c */
bool hv_promote_sock(struct hv_sock *s, int fd);
void hv_pend_to_kernel(struct hv_sock *s);
unsigned hv_late_collect(struct hv_sock *s, uint64_t now_us, bool *left, int *err);
int hv_demote_locked(struct hv_sock *s, enum hv_why why, bool lost);
unsigned hv_demote_all_locked(enum hv_why why, bool lost); /* how many the kernel refused */
void hv_sock_abandon_locked(struct hv_sock *s);
void hv_tier_set(struct hv_sock *s, enum hv_tier t);
int hv_sock_fd(const struct hv_sock *s);
void hv_sleep_ms(unsigned ms);

/* epoll.c, lock held */
bool hv_epoll_room(const struct hv_sock *s);
void hv_epoll_promoted(struct hv_sock *s);
void hv_epoll_demoted(struct hv_sock *s);
void hv_epoll_event(struct hv_sock *s, uint32_t events);
void hv_epoll_consumed(struct hv_sock *s);
void hv_epitem_drop(struct hv_epitem *it);           /* unlinks and frees */

/* wait.c, lock held for get/put */
struct hv_wakefd *hv_wakefd_get(void);
void hv_wakefd_put(struct hv_wakefd *w);
void hv_wakefd_signal(struct hv_wakefd *w);
uint64_t hv_spin_budget(void);
void hv_spin_learn(bool hit, uint64_t waited_ns);
void hv_wait_gone(void);
bool hv_in_handler(void); /* of the program: nothing that allocates memory, or frees it */

/* opt.c */
enum { HV_CM_PKTINFO = 1, HV_CM_TTL = 2, HV_CM_TOS = 4, HV_CM_ORIGDST = 8, HV_CM_PKTINFO6 = 16, HV_CM_HOPLIMIT = 32, HV_CM_TCLASS = 64 };
bool hv_udp_options_fit(struct hv_sock *s, int fd);

/* tcpinfo.c, lock held */
int hv_info_vf(struct hv_sock *s, void *val, socklen_t len);      /* struct tcp_info; octets written, 0: ask the kernel */
int hv_meminfo_vf(struct hv_sock *s, uint32_t *val, socklen_t len);
void hv_info_past_kernel(struct hv_sock *s, int fd); /* before a promotion */
void hv_info_past_vf(struct hv_sock *s);             /* before the TCB is released */

/* udp.c */
#define HV_KERNEL_LOOK_NS 20000u   /* 0.2-0.5 us a look */
#define HV_KERNEL_LOOK_MAX 320000u
static inline bool hv_kernel_due(struct hv_sock_priv *p, uint64_t now_ns)
{
	/* signed: another thread's clock may be ahead */
	return (int64_t)(now_ns - atomic_load_explicit(&p->k_seen_ns, memory_order_relaxed)) >= (int64_t)atomic_load_explicit(&p->k_gap_ns, memory_order_relaxed);
}
static inline void hv_kernel_looked(struct hv_sock_priv *p, uint64_t now_ns, bool found)
{
	uint64_t gap = atomic_load_explicit(&p->k_gap_ns, memory_order_relaxed);

	atomic_store_explicit(&p->k_seen_ns, now_ns, memory_order_relaxed);
	if (!found)
		atomic_store_explicit(&p->k_gap_ns, gap < HV_KERNEL_LOOK_MAX ? gap * 2 : HV_KERNEL_LOOK_MAX, memory_order_relaxed);
}
static inline void hv_kernel_has(struct hv_sock_priv *p, bool something)
{
	atomic_store_explicit(&p->k_ready, something, memory_order_relaxed);
}
bool hv_udp_eligible(struct hv_sock *s, int fd, struct hv_tuple *t, int *upper, enum hv_why *why);
bool hv_udp_alone(struct hv_sock *s, uint64_t now_us);
bool hv_udp_readable(const struct hv_sock *s);
ssize_t hv_udp_recvmsg(struct hv_sock *s, struct msghdr *msg, int flags);
ssize_t hv_udp_sendmsg(struct hv_sock *s, const struct msghdr *msg, int flags);
int hv_udp_inq(struct hv_sock *s);
/* the remote end, in the socket's family */
socklen_t hv_udp_addr(const struct hv_sock *s, const struct hv_tuple *t, struct sockaddr_storage *ss);
void hv_udp_resend_unfinished(void);
void hv_udp_store_add(struct hv_sock *s);            /* lock held: memory for datagrams that a slow reader leaves */
void hv_udp_store_drop(struct hv_sock *s);           /* lock held, nothing in it */

/* fork.c, lock held but for the last */
void hv_fork_line_prepare(void);
void hv_fork_line_parent(uint32_t gen);
void hv_fork_line_child(uint32_t gen);
int hv_fork_fds(int *fds, int n);
void hv_fork_changed(uint32_t gen);
bool hv_fork_exclusive(struct hv_sock *s, int fd);

/* service.c */
void hv_service_kick(void);
bool hv_service_start(int upper);
void hv_ring_failover(enum hv_loss cause);                   /* any thread, takes the lock */

/* exception.c, service thread, lock not held */
void hv_exception_poll(void);

/* path.c */
int hv_sock_route(int fd, const struct hv_tuple *t, struct hv_route *rt); /* any thread */
void hv_path_l2(uint8_t l2[14], const struct hv_route *rt, uint8_t family);
/* lock held */
void hv_path_fresh(struct hv_sock *s, uint64_t now_us);
unsigned hv_path_look(struct hv_sock *s, uint64_t now_us);   /* may demote; acts of the stack */
void hv_path_icmp(const uint8_t *frame, uint32_t len, uint64_t now_us);

/* stats.c */
struct hv_stats {
	_Atomic uint64_t promotes, promote_fails, demotes, demote_retries, orphaned, orphans_lost;
	_Atomic uint64_t demote_why[HV_WHY_MAX], stay_why[HV_WHY_MAX], move_why[32];
	_Atomic uint64_t vf_rx_octets, vf_tx_octets, vf_rx_calls, vf_tx_calls;
	_Atomic uint64_t udp_kernel_path, udp_resent, path_mtus, captured, injected_unknown, sleeps, spins_hit, ring_opens, ring_losses;
	_Atomic uint64_t promote_ns_max, promote_ns_sum, demote_ns_max, demote_ns_sum, failover_ns_max, failover_socks;
};
extern struct hv_stats S;
#define HV_COUNT(field) atomic_fetch_add_explicit(&S.field, 1, memory_order_relaxed)
#define HV_ADD(field, n) atomic_fetch_add_explicit(&S.field, (n), memory_order_relaxed)
/* For fields that are only counted with G.lock held: no locked instruction on the data path. */
#define HV_ADD_LOCKED(field, n) \
	atomic_store_explicit(&S.field, atomic_load_explicit(&S.field, memory_order_relaxed) + (n), memory_order_relaxed)
void hv_journal(const char *what, const struct hv_sock *s, const char *why, uint64_t ns);
void hv_stats_max(_Atomic uint64_t *m, uint64_t v);
void hv_summary_write(void);
void hv_stats_fork_child(void);
void hv_stay(struct hv_sock *s, enum hv_why why, uint64_t retry_ns);
int hv_tuple_print(const struct hv_tuple *t, char *buf, size_t len);

/* A data call or a segment makes no deadline earlier but the stack's. */
static inline void hv_timer_moved(struct hv_sock *s)
{
	struct hv_sock_priv *p = s->p;

	if (HV_UNLIKELY(p->heap_idx == 0 || hv_tcp_deadline(p->tcb) < p->heap_key))
		hv_timer_update(s, hv_sock_deadline(s));
}

static inline uint64_t hv_timer_next(void)
{
	return G.heap_n != 0 ? G.heap[1]->p->heap_key : UINT64_MAX;
}

/* Nothing is to be promoted now: looked at before, and again with the lock held. */
static inline bool hv_closed(void)
{
	return atomic_load(&G.off) || atomic_load(&G.paused) != 0;
}

static inline bool hv_ring_ready(void)
{
	return atomic_load_explicit(&G.ring, memory_order_acquire) == HV_RING_READY;
}

#endif
