/*
 * handoff.h - moving one live TCP connection between the kernel and us on the same fd (TCP_REPAIR).
 *
 * The order of steps is the one proved in tests/model/handoff.pml; changing it means changing the model first. Calls are plain
 * sequences of syscalls (raw, see base/sys.h): no locks, no globals but the per-process guard. The engine serialises the calls for one
 * socket. CAP_NET_ADMIN is needed for TCP_REPAIR, CAP_NET_RAW for injection: hv_handoff_init() tells what is missing.
 */
#ifndef HV_HANDOFF_H
#define HV_HANDOFF_H

#include <sys/types.h>

#include "stack/image.h"

/* Why a socket can't be promoted now (retry later) or ever (pin). One table gives text and whether it is permanent. */
enum hv_move_why {
	HV_MOVE_OK = 0,
	/* permanent for this socket */
	HV_MOVE_MPTCP, HV_MOVE_ULP, HV_MOVE_OWN_FILTER, HV_MOVE_USEC_TS, HV_MOVE_REPAIR_IN_USE, HV_MOVE_MD5, HV_MOVE_NO_TS_OR_OPT, HV_MOVE_FAMILY,
	HV_MOVE_EPERM,
	/* for now */
	HV_MOVE_STATE,       /* not ESTABLISHED */
	HV_MOVE_URGENT, HV_MOVE_OOO, /* out-of-order octets in the kernel */
	HV_MOVE_RECOVERY,    /* tcpi_ca_state != Open or retransmissions outstanding */
	HV_MOVE_TOO_MUCH,    /* queues larger than the limits */
	HV_MOVE_SYSCALL,     /* unexpected errno: see hv_park.err/step */
};
const char *hv_move_why_text(enum hv_move_why why);
bool hv_move_why_permanent(enum hv_move_why why);

/* Kept by the engine for each socket that has ever moved. */
struct hv_park {
	int fd;
	struct hv_tuple tuple;
	uint64_t frozen_us;     /* when the filter was attached */
	bool parked, settled, bound, guarded;
	bool had_outq;          /* kernel still holds sent-unacked octets: settle must purge */
	uint32_t rcv_nxt, write_seq, snd_una; /* as frozen, for settle and the late check */
	uint32_t moves;
	/* options that the dance clobbers, restored by demote */
	int reuseaddr, peek_off, quickack, window_clamp;
	int keepalive;          /* while parked SO_KEEPALIVE is off in the kernel: a program's setsockopt must be stored here instead */
	int user_mss;           /* the program's TCP_MAXSEG, 0 none; not readable: the engine stores it */
	int rto_min_us, delack_max_us; /* -1: not supported here */
	uint8_t tcp_opts, snd_wscale, rcv_wscale;
	bool rtt_octet;         /* the last demotion had one octet acknowledged again, for the round-trip time: the kernel's counts have it */
	uint32_t mss_clamp;
	int err; const char *step; /* diagnosis of HV_MOVE_SYSCALL and of a failed settle or demote */
	/* private to src/failover */
	int domain;             /* of the socket: a v4-mapped one is AF_INET6 with a family-4 tuple */
	uint32_t copied_seq;    /* front of the kernel's receive queue: what is before rcv_nxt there, we have too */
	uint32_t ooo_base;      /* tcpi_rcv_ooopack when the out-of-order queue was last known to be empty */
	uint32_t fin_seq;       /* of a FIN that the kernel took after the freeze */
	uint32_t sent_nxt;      /* until settled: the kernel may have sent up to here before its queue was purged, the peer may acknowledge that much */
	uint32_t rcv_held;      /* unread octets and window that the kernel itself had promised at the freeze */
	uint64_t unhashed_us;   /* when the last disconnect happened: the guard key must outlive it by a grace period */
	int guard_sock;         /* socket guard left standing by a failed rehash: fd + 1, 0 none */
	int guard_if, bound_if; /* the device it watches; SO_BINDTODEVICE of the program */
	bool unhashed;          /* in no hash table: disconnected, not yet connected again */
	bool clobbered;         /* options are saved here and wait to be restored */
	bool late_fin, late_rst, tfo_connect;
};

/* Once per process and netns; idempotent; safe to call again after fork (child: drops inherited state first). 0 or -errno with *what naming the
 * missing thing ("CAP_NET_ADMIN", ...). guard_mode: 0 auto, 1 bpf only, 2 socket trick only. */
int hv_handoff_init(int guard_mode, const char **what);
void hv_handoff_fini(void);          /* also frees the netns guard when the last user goes */
const char *hv_handoff_guard_kind(void); /* "sk_lookup" | "socket" | "none" */

/* In a forked child, before anything else of this header and instead of hv_handoff_fini(): closes the inherited descriptors, so that the parent's guard does
 * not outlive the parent. Async-signal-safe; the parent is not affected. hv_handoff_init() does it by itself when it notices the fork. */
void hv_handoff_child(void);
/* Housekeeping (guard keys of closed connections). Every call of this header does it too; without other calls once per 100 ms is right: a key that stays
 * swallows the SYN of a new connection with the same tuple. True: there is more to do later. */
bool hv_handoff_tick(uint64_t now_us);
/* Descriptors that the program must not close: at most n are stored, the count is returned. */
int hv_handoff_fds(int *fds, int n);

/* Cheap checks that change nothing; call before steering. max_octets limits each queue. */
enum hv_move_why hv_promote_check(int fd, struct hv_park *pk, struct hv_tcp_image *img, uint32_t max_octets);
/* Freeze and read (handoff.md 1.2 steps 1, 3-7). The flow rule must already be in place. rcv/snd octets are copied to buf[cap] and img points in there.
 * On failure the socket is an ordinary kernel socket again. */
enum hv_move_why hv_promote(int fd, struct hv_park *pk, struct hv_tcp_image *img, uint8_t *buf, size_t cap);
/* Undo right after hv_promote(), before anything was sent or acked by us (import failed). */
void hv_promote_undo(struct hv_park *pk);

/* Late accept: >0 octets were accepted by the kernel after the freeze (copied to buf, they start at pk->rcv_nxt which is advanced), 0 none,
 * -errno. *fin_or_rst: state left ESTABLISHED meanwhile: demote at once. settle additionally purges the kernel's send queue; may be called only >= one RCU
 * grace period after the freeze (hv_barrier() or 25 ms). una/rcv_nxt: current values of the userspace TCB for the rehash. 0: settled; 1: what the kernel
 * itself has sent isn't all acknowledged, call again later; or -errno. */
ssize_t hv_late_check(struct hv_park *pk, uint8_t *buf, size_t cap, bool *fin_or_rst);
int hv_settle(struct hv_park *pk, uint32_t snd_una, uint32_t rcv_nxt);
void hv_barrier(void);               /* wait until no softirq can still be in the old path */

/* Put the connection back (1.4 steps 1-11). img: state and octets (img->snd: snd_una..snd_end; the part up to snd_nxt was sent).
 * lost: the sent part probably never arrived: resend it once through the raw socket at once. Returns 0 or -errno (socket stays parked, retry; our own stack
 * may go on meanwhile). -EAGAIN: the kernel holds late octets that hv_late_check() hasn't returned yet; img must contain all that it has returned. U, the unsent tail, is sent with the
 * ordinary send(), growing SO_SNDBUF for the moment if it must; nothing is dropped. */
int hv_demote(struct hv_park *pk, const struct hv_tcp_image *img, bool lost);

/* Give an IP packet to the local kernel as if received (raw socket over lo). 0 or -errno. */
int hv_inject(const struct hv_tuple *t, const void *l3, size_t len);
/* Build and inject one TCP segment of the peer's: out-of-order octets, FIN, RST. */
int hv_inject_tcp(const struct hv_tcp_image *img, uint32_t seq, uint32_t ack, uint8_t flags, const void *data, uint32_t len);

/* Connection is closed for good: the guard key goes, lazily. */
void hv_park_forget(struct hv_park *pk);

struct hv_move_counters { uint64_t promotes, promote_fails, demotes, demote_fails, late_accepts, late_octets, settles, purges, injected, resent; };
const struct hv_move_counters *hv_move_counters(void);

#endif
