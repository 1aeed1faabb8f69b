/*
 * internal.h - what the files of the hand-off share. Only src/failover includes it.
 *
 * hv_g is written by hv_handoff_init(), hv_handoff_fini() and hv_handoff_child() only. Everything else reads it, when hv_handoff_open() has said that
 * it's complete; what hv_promote_check() wants to know before that is read as it is. The pending guard keys in guard.c
 * have their own lock.
 */
#ifndef HV_FAILOVER_INTERNAL_H
#define HV_FAILOVER_INTERNAL_H

#include <netinet/in.h>

#include "failover/handoff.h"

enum hv_guard_kind { HV_GUARD_NONE, HV_GUARD_SK_LOOKUP, HV_GUARD_SOCKET };

struct hv_handoff_state {
	int pid;              /* of the process that opened all this, 0 none */
	bool eperm;           /* an attempt to open it failed for lack of privilege */
	enum hv_guard_kind kind;
	int drop_fd;          /* eBPF socket filter "drop everything" but HV_RTT_MARK, -1: the classic one is used */
	_Atomic unsigned rtt_misses; /* demotions in a row that could not take the round-trip time along */
	int map_fd, link_fd;  /* sk_lookup guard */
	int listen_fd[2];     /* guard listeners, IPv4 and IPv6 */
	int raw_fd[2];        /* IPPROTO_RAW, IPv4 and IPv6 */
	uint64_t netns;       /* SO_NETNS_COOKIE, 0 unknown */
	uint32_t rmem_max, wmem_max; /* third field of tcp_rmem and tcp_wmem */
	uint64_t barrier_us;  /* when the last complete barrier began */
};
extern struct hv_handoff_state hv_g;
static inline bool hv_handoff_open(void) { return __atomic_load_n(&hv_g.pid, __ATOMIC_ACQUIRE) != 0; }
extern struct hv_move_counters hv_moves;
#define HV_MOVED(field, n) ((void)__atomic_fetch_add(&hv_moves.field, (uint64_t)(n), __ATOMIC_RELAXED))

/* One RCU grace period is 6..31 ms at HZ=250; a guard key outlives the last gap by more than that. */
#define HV_GRACE_US 50000u
/* What settle uses: with a late check after it, an overlong softirq is still noticed. */
#define HV_SETTLE_US 25000u

union hv_sa { struct sockaddr sa; struct sockaddr_in in; struct sockaddr_in6 in6; };
/* The address of one end of the tuple as a socket of that domain takes it (v4-mapped when the domain is AF_INET6 and the tuple is IPv4). */
socklen_t hv_sa_from(union hv_sa *a, const struct hv_tuple *t, int domain, bool local);

/* The descriptor moved out of the program's way (>= 512 if the limit allows), close-on-exec. Takes and returns -errno as it is. */
void hv_fd_drop(int *fd);

#define HV_RTT_MARK 0x68765254 /* SO_MARK of what the drop filter lets through */
int hv_drop_load(void);          /* eBPF program fd or -errno */
int hv_drop_attach(int fd);
int hv_drop_detach(int fd);

int hv_guard_open(int mode, const char **what);
int hv_guard_add(const struct hv_tuple *t);
/* Remove now, or after a grace period when the tuple was unhashed a moment ago. */
void hv_guard_remove(const struct hv_tuple *t, uint64_t unhashed_us);
bool hv_guard_tick(uint64_t now_us, bool all);
void hv_guard_forked(void);      /* forgets the pending keys without touching the map */

/* Repair queue q (TCP_*_QUEUE) selected, its sequence number read or set. The queue stays selected: TCP_NO_QUEUE afterwards. */
int hv_repair_queue(int fd, int q);
int hv_queue_seq(int fd, int q, uint32_t *seq);
int hv_queue_seq_set(int fd, int q, uint32_t seq);
/* Out of the hash table and back in, with empty queues and these sequence numbers; guarded. On failure the socket is hashed as before, or unhashed with
 * its guard in place; calling again is right in both cases. Ends with TCP_NO_QUEUE. */
int hv_rehash(struct hv_park *pk, uint32_t snd, uint32_t rcv);
/* Options that a disconnect loses: back, and no longer pending. */
void hv_options_restore(struct hv_park *pk);
int hv_step(struct hv_park *pk, const char *step, long r); /* notes the failing step; returns r */

int hv_raw_open(int family);
/* An ACK of SND.UNA to the local kernel, through the drop filter, from which it takes the round-trip time of img; false: it hasn't. */
bool hv_inject_rtt(const struct hv_park *pk, const struct hv_tcp_image *img);
/* Bytes that were in flight when the VF vanished: out to the peer, once, as segments. */
void hv_resend(const struct hv_park *pk, const struct hv_tcp_image *img, uint32_t tsval);

static inline bool hv_seq_lt(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }

#endif
