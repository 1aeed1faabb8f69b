/*
 * engine.h - sockets and their tiers, waits, readiness: what src/preload may call.
 *
 * The preload layer knows file descriptors and POSIX; the engine knows struct hv_sock and the ring. All functions here preserve errno,
 * return -errno where they fail, and may be called by any thread, unless stated otherwise. One lock (the ring lock) inside; never held
 * across a wait or handed to the caller.
 *
 * How a data call works (preload):
 *
 *     for (;;) {
 *             if (hv_sock_vf(s)) {
 *                     r = hv_vf_recvmsg(s, msg, flags);         // never blocks
 *                     if (r == HV_MOVED) continue;              // demoted meanwhile
 *                     if (r != -EAGAIN || nonblocking) return r;
 *                     w = hv_wait_sock(s, EPOLLIN, deadline);   // sleeps; wakes on data, move, signal, deadline
 *                     ...
 *             } else {
 *                     hv_sock_touch(s, fd, HV_DIR_RECV);        // policy; may promote
 *                     if (!hv_kernel_enter(s)) continue;        // was promoted: try again
 *                     r = <the real call>;
 *                     hv_kernel_leave(s, r);
 *                     return r;
 *             }
 *     }
 */
#ifndef HV_ENGINE_H
#define HV_ENGINE_H

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

/* Returned by hv_vf_* and waits when the socket isn't in the VF tier (any more): look again. Outside errno's range. */
#define HV_MOVED (-65536)

enum hv_tier { HV_TIER_KERNEL, HV_TIER_MOVING, HV_TIER_VF };
enum hv_dir { HV_DIR_RECV, HV_DIR_SEND };

/* Why a socket is, stays or went where it is. Texts: hv_why_text(). New reasons are added in why.def only. */
enum hv_why {
#define HV_WHY(NAME, text) HV_WHY_##NAME,
#include "engine/why.def"
#undef HV_WHY
	HV_WHY_MAX
};
const char *hv_why_text(enum hv_why why);

struct hv_sock_priv;
struct hv_sock {
	_Atomic uint32_t tier;     /* enum hv_tier */
	_Atomic uint32_t inflight; /* threads inside a kernel call on this socket */
	_Atomic uint32_t refs;
	_Atomic uint32_t names;    /* descriptors of it in this process, counted by preload; starts at 1 */
	_Atomic bool pinned;       /* never promote (again): shared, unsupported option ... */
	uint8_t family;            /* AF_INET / AF_INET6 */
	uint8_t type;              /* SOCK_STREAM / SOCK_DGRAM */
	_Atomic bool after_read;   /* engine's: promote when a read has emptied the kernel's queue */
	_Atomic bool corked;       /* UDP: the kernel holds the beginning of a datagram (MSG_MORE); the rest must go there too */
	_Atomic bool nonblock;     /* O_NONBLOCK mirror of the open file description, kept by preload */
	_Atomic uint8_t held_error; /* an errno of the kernel's, told to a call that had something else to say: the next one's */
	_Atomic int64_t rcvtimeo_ns, sndtimeo_ns; /* 0 = none; mirrors kept by preload */
	_Atomic uint32_t calls;    /* policy */
	_Atomic uint64_t window_ns;
	struct hv_sock_priv *p;    /* engine's own */
};

/* An error of the kernel's socket is told once. A call that has moved octets, or got a datagram, before it came to hear of it can't say so. */
void hv_error_hold(struct hv_sock *s, int err);
/* The held one, which then is no longer; 0: none. */
static inline int hv_error_take(struct hv_sock *s)
{
	return __builtin_expect(atomic_load_explicit(&s->held_error, memory_order_relaxed), 0) == 0 ? 0 : atomic_exchange(&s->held_error, 0);
}

/* ---- life ---- */
/* Constructor and fork. init reads hv_conf; nothing is opened until the first promotion. */
void hv_engine_init(void);
void hv_engine_fork_prepare(void);   /* demotes everything, takes the lock */
void hv_engine_fork_parent(void);
void hv_engine_fork_child(void);     /* forgets ring and thread without touching the device; sockets are kernel-tier and pinned as shared */
void hv_engine_stop(enum hv_why why); /* demotes everything and promotes nothing any more */
/* Around a call that may take CAP_NET_ADMIN from the process: without it nothing could be given back, so everything is before, and nothing is promoted until it is there
 * (again). */
void hv_engine_privileges_change(void);
void hv_engine_privileges_changed(void);
void hv_engine_exit(void);           /* demotes everything, writes the summary; idempotent */
/* Everything to the kernel, and nothing promoted until hv_engine_resume(). Afterwards no thread is in the middle of a move. */
void hv_engine_pause(enum hv_why why);
void hv_engine_resume(void);
/* A fatal signal, in its handler, on top of anything but the engine: everything to the kernel if that can be done now, without malloc() or free(). */
void hv_engine_dying(void);

/* Forks: fork.c. Is it worth while to tell the engine about each name of each socket before one? */
bool hv_fork_matters(void);
void hv_sock_before_fork(struct hv_sock *s, bool cloexec);
/* In the child, the same. */
void hv_sock_forked(struct hv_sock *s);
/* It has got a name without close-on-exec. */
void hv_sock_leaks(struct hv_sock *s);

/* fd: a descriptor of it; the socket is AF_INET/AF_INET6 STREAM or DGRAM. refs = 1. NULL: no memory, treat as unknown fd. */
struct hv_sock *hv_sock_new(int fd, int family, int type, bool nonblock);
void hv_sock_ref(struct hv_sock *s);
void hv_sock_put(struct hv_sock *s);
/* One fd of several referring to s goes away (close of a dup): drop epoll memberships made through this fd. */
void hv_sock_fd_closed(struct hv_sock *s, int fd);
/* The last fd of this process is about to be closed: demotes (FIN, linger, unsent data are the kernel's). Call before the real close. Where
 * the kernel refuses the connection at that moment, the library keeps it by a descriptor of its own, goes on trying and closes it then. */
void hv_sock_last_close(struct hv_sock *s, int fd);
/* Its kernel socket is gone already (closed behind our back): release what it holds on the VF, without a hand-off. */
void hv_sock_abandon(struct hv_sock *s);
/* Descriptors of the library itself that the program must not close: at most n are stored, the count is returned. */
int hv_engine_fds(int *fds, int n);
/* s is reachable through newfd too (dup family): remember, so that work goes on when the first fd is closed. */
void hv_sock_fd_added(struct hv_sock *s, int newfd);

/* ---- tier ---- */
static inline bool hv_sock_vf(const struct hv_sock *s) { return atomic_load_explicit(&s->tier, memory_order_acquire) == HV_TIER_VF; }
/* True: the caller may do a kernel call on the socket until hv_kernel_leave(). False: promoted (or moving: waits for the end of it
 * first). */
bool hv_kernel_enter_slow(struct hv_sock *s);
static inline bool hv_kernel_enter(struct hv_sock *s)
{
	atomic_fetch_add(&s->inflight, 1); /* seq_cst: pairs with the promoter's tier store / inflight load */
	if (atomic_load(&s->tier) == HV_TIER_KERNEL)
		return true;
	return hv_kernel_enter_slow(s);
}
/* The socket waits for a moment with an empty receive queue: right after a read is the likeliest one. */
void hv_kernel_left(struct hv_sock *s);
/* What the kernel carried, for the summary: a line for each thread (shared from the 65th on, then a count may get lost). */
struct hv_kernel_sum {
	_Atomic uint64_t calls, octets;
	uint64_t pad[6];
} __attribute__((aligned(64)));
extern __thread struct hv_kernel_sum *hv_kernel_mine __attribute__((tls_model("initial-exec")));
struct hv_kernel_sum *hv_kernel_sum_get(void);
static inline void hv_kernel_leave(struct hv_sock *s, ssize_t octets)
{
	if (octets > 0) {
		struct hv_kernel_sum *k = hv_kernel_mine != NULL ? hv_kernel_mine : hv_kernel_sum_get();
		atomic_store_explicit(&k->calls, atomic_load_explicit(&k->calls, memory_order_relaxed) + 1, memory_order_relaxed);
		atomic_store_explicit(&k->octets, atomic_load_explicit(&k->octets, memory_order_relaxed) + (uint64_t)octets, memory_order_relaxed);
	}
	atomic_fetch_sub(&s->inflight, 1);
	if (__builtin_expect(atomic_load_explicit(&s->after_read, memory_order_relaxed), 0) && octets > 0)
		hv_kernel_left(s);
}
/* Before each kernel-tier data call: counts it and promotes a hot socket. Cheap when nothing is to be done. */
void hv_sock_touch(struct hv_sock *s, int fd, enum hv_dir dir);
/* Move to the kernel now (no-op there). Afterwards the kernel fd is exact. */
void hv_sock_demote(struct hv_sock *s, enum hv_why why);
/* The same, and never promote again. */
void hv_sock_pin(struct hv_sock *s, enum hv_why why);
/* Every VF-tier socket of the process. */
void hv_demote_all(enum hv_why why);

/* ---- VF-tier data; never block; msg as for recvmsg/sendmsg. >= 0, -errno or HV_MOVED ---- */
ssize_t hv_vf_recvmsg(struct hv_sock *s, struct msghdr *msg, int flags);
ssize_t hv_vf_sendmsg(struct hv_sock *s, const struct msghdr *msg, int flags);
/* read/recv and write/send without a msghdr: the fast way. */
ssize_t hv_vf_recv(struct hv_sock *s, void *buf, size_t len, int flags);
ssize_t hv_vf_send(struct hv_sock *s, const void *buf, size_t len, int flags);
/* After the kernel has accepted a setsockopt, whatever the tier: tell the mirror. KERNEL: the caller demotes; PIN: for good. In the kernel
 * tier the caller holds it there meanwhile. */
enum hv_opt_end { HV_OPT_FINE, HV_OPT_KERNEL, HV_OPT_PIN };
enum hv_opt_end hv_sock_option(struct hv_sock *s, int level, int opt, const void *val, socklen_t len);
/* Before the kernel is asked: does setsockopt (set) or getsockopt want the connection itself there? */
bool hv_sock_option_live(const struct hv_sock *s, int level, int opt, bool set);
/* s has just been accepted from a listener. */
void hv_sock_inherit(struct hv_sock *s, const struct hv_sock *from);
/* TCP_INFO etc. while on the VF: >0 bytes written, 0 = ask the kernel, HV_MOVED. */
int hv_vf_getsockopt(struct hv_sock *s, int level, int opt, void *val, socklen_t *len);
/* After the kernel has answered TCP_INFO in the kernel tier: adds what was counted before the last hand-off. */
void hv_kernel_info(const struct hv_sock *s, void *val, socklen_t len);
/* After bind() or connect() of a UDP socket. */
void hv_udp_named(const struct hv_sock *s, int fd);
/* After a send in the kernel: with MSG_MORE the datagram isn't complete yet. */
static inline void hv_udp_cork(struct hv_sock *s, int flags, ssize_t r)
{
	bool more = (flags & MSG_MORE) != 0;
	if (__builtin_expect(r >= 0 && more != atomic_load_explicit(&s->corked, memory_order_relaxed), 0))
		atomic_store_explicit(&s->corked, more, memory_order_relaxed);
}
/* SIOCINQ / SIOCOUTQ / SIOCOUTQNSD: value, or HV_MOVED. */
int hv_vf_queue(struct hv_sock *s, unsigned long req);

/* ---- waiting ---- */
/* The preload layer's signal wrapper adds one for each signal that this thread takes or puts aside: a wait that spins sees it and ends with
 * -EINTR, as the sleep in the kernel would. */
extern __thread uint32_t hv_sig_count __attribute__((tls_model("initial-exec")));
/* It has put one aside that waits for the end of this call, so nothing may sleep any more; and where it makes a sleep that is about to
 * begin take no time. */
extern __thread bool hv_sig_kept __attribute__((tls_model("initial-exec")));
extern __thread volatile struct timespec *hv_sleep __attribute__((tls_model("initial-exec")));
/* The frame in which it runs a handler of the program, which may have interrupted anything, malloc() too; NULL: none. */
extern __thread const char *hv_handler_frame __attribute__((tls_model("initial-exec")));
/* Sleeps are cancellation points, whose thread leaves the engine without returning from its call: called then, once, with no lock held. Set by preload. */
extern void (*hv_wait_cancelled)(void);
/* Progress without waiting: poll the ring once if nobody else does. */
void hv_progress(void);
/* Current readiness of a VF-tier socket: EPOLLIN|OUT|RDHUP|HUP|ERR as the kernel would say; HV_MOVED as (uint32_t)... see return: false =
 * moved. */
bool hv_sock_events(struct hv_sock *s, uint32_t *events);
/* Until one of `events` (or ERR/HUP) on a VF-tier socket. deadline_ns: CLOCK_MONOTONIC, INT64_MAX = none. 0 ready, -EAGAIN deadline, -EINTR
 * signal, HV_MOVED. */
int hv_wait_sock(struct hv_sock *s, uint32_t events, int64_t deadline_ns);

/* poll/ppoll/select over a mix of kernel fds and sockets. Entry with s == NULL: plain kernel fd (fd < 0: ignored). revents are filled for
 * all. Returns ready entries, 0 at the deadline, -errno. mask: as for ppoll, NULL = leave. */
struct hv_pollent { struct hv_sock *s; int fd; short events, revents; };
int hv_poll(struct hv_pollent *ents, unsigned n, int64_t deadline_ns, const sigset_t *mask);

/* ---- epoll ---- */
struct hv_epoll;
struct hv_epoll *hv_epoll_new(int epfd);
void hv_epoll_ref(struct hv_epoll *ep);
void hv_epoll_put(struct hv_epoll *ep);
/* Both do the kernel's epoll_ctl/epoll_wait as needed and return as it does, with -errno. s: the tracked socket behind fd or NULL. */
int hv_epoll_ctl(struct hv_epoll *ep, int epfd, int op, int fd, struct hv_sock *s, struct epoll_event *ev);
/* timeout_ns < 0: for ever. */
int hv_epoll_wait(struct hv_epoll *ep, int epfd, struct epoll_event *ev, int maxevents, int64_t timeout_ns, const sigset_t *mask);
bool hv_epoll_active(const struct hv_epoll *ep); /* has VF-tier members: a plain kernel wait on epfd would miss events */
/* The name fd of the set is about to go; `other` is one that stays. */
void hv_epoll_fd_closed(struct hv_epoll *ep, int fd, int other);
/* epfd has been added to another set or handed to poll/select: readiness of VF members must show on the epfd itself. */
void hv_epoll_set_nested(struct hv_epoll *ep);

#endif
