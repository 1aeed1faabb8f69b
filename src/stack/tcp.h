/*
 * tcp.h - TCP as pure functions (RFC 9293, data transfer in ESTABLISHED).
 *
 * No clock, no I/O, no globals, no callbacks, no allocation: the caller passes the TCB, the ring's pools (struct hv_env), the
 * input and `now`, and gets back a set of actions. Segments are built into memory the caller gives. Every function is called
 * with the ring's lock held; none blocks. Only src/engine, tests and fuzzers call in.
 *
 * Only ESTABLISHED lives here: an in-order FIN, an acceptable RST, urgent data or anything else that leaves ESTABLISHED makes
 * hv_tcp_input() return HV_TCP_DEMOTE without consuming the segment; the engine demotes and re-injects it into the kernel.
 */
#ifndef HV_TCP_H
#define HV_TCP_H

#include "base/pkt.h"
#include "stack/image.h"

struct hv_tcb; /* size: hv_tcb_size(); 64-octet aligned memory from the caller; layout in tcb.h */
#define HV_TCB_HOT 320u /* octets of it that the fast path touches, from its start */

/* A parsed segment, host order. Filled by hv_tcp_parse(). */
struct hv_seg {
	struct hv_buf *buf;     /* holder of the octets; NULL when data is borrowed (late octets at settle): then it is copied */
	const uint8_t *data;
	uint32_t len;           /* payload octets */
	uint32_t seq, ack;
	uint32_t wnd;           /* raw 16-bit field, not yet scaled */
	uint32_t tsval, tsecr;
	uint8_t flags;          /* FIN 1 SYN 2 RST 4 PSH 8 ACK 16 URG 32 ECE 64 CWR 128 */
	bool has_ts;
	bool ce;                /* IP ECN field was CE */
	uint8_t nsack;
	uint32_t sack[4][2];
};

/* Actions returned by input, timeout, write, read. */
enum {
	HV_TCP_READABLE = 1,    /* new in-order octets are readable */
	HV_TCP_WRITABLE = 2,    /* send buffer space became free */
	HV_TCP_OUT = 4,         /* call hv_tcp_output() until it returns false */
	HV_TCP_KEPT = 8,        /* seg->buf was taken over; otherwise the caller still owns it */
	HV_TCP_DEMOTE = 16,     /* segment not processed: demote to the kernel, then inject it there */
	HV_TCP_DROP = 32,       /* segment was unacceptable and dropped (counted) */
	HV_TCP_TIMEDOUT = 64,   /* R2 / TCP_USER_TIMEOUT / keepalive exhausted: demote; hv_tcp_error() tells the errno */
};

struct hv_tcp_counters { /* per ring, monotone */
	uint64_t segs_in, segs_out, octets_in, octets_out, predicted, rexmit_segs, rto, fast_rexmit, dup_acks, ooo_in, sack_in,
	    challenge_acks, paws_drops, bad_seq, bad_ack, zero_window_probes, delayed_acks, tlp, demote_fin, demote_rst, demote_other;
};

size_t hv_tcb_size(void);

/* Ask for the lines that a segment or a small message touches, some time before it is processed: for batches over many connections. */
static inline void hv_tcp_prefetch(const struct hv_tcb *tcb)
{
	for (unsigned i = 0; i < HV_TCB_HOT; i += 64)
		__builtin_prefetch((const char *)tcb + i, 1);
}
void hv_tcp_prefetch_more(const struct hv_tcb *tcb); /* when those have come: what they point to */

/* Checks the L4 header (length, data offset, options strictly bounded: length 0/1 options end the parse) at l4[0..l4_len) and fills
 * *seg but not seg->buf. Checksum is the caller's (NIC flag or hv_csum_l4()). False: malformed, drop. */
bool hv_tcp_parse(const uint8_t *l4, uint32_t l4_len, struct hv_seg *seg);

/* Make *tcb from an image. hdr_l2[l2_len] is the Ethernet (+VLAN) header for output. Unread octets (img->rcv) and send-queue octets
 * (img->snd) are copied: rcv into memory taken from... a private malloc-free run: the caller passes `aux` >= img->rcv_len octets that
 * must stay valid until hv_tcp_aux_done(); snd into env chunks. 0, or -ENOBUFS / -EINVAL (image inconsistent) with nothing taken. */
int hv_tcp_import(struct hv_tcb *tcb, struct hv_env *env, struct hv_tcp_counters *cnt, const struct hv_tcp_image *img,
    const uint8_t *hdr_l2, uint32_t l2_len, uint8_t *aux, uint64_t now_us);
bool hv_tcp_aux_done(const struct hv_tcb *tcb);

/* Late accept (handoff.md 1.3): octets that the kernel acked after the freeze; treated as in-order data up to seq_end. DROP: not all of
 * them could be taken (no memory): offer the same range again later; what was taken is skipped then. It must not be forgotten, the peer
 * won't resend it. */
unsigned hv_tcp_late(struct hv_tcb *tcb, struct hv_env *env, uint32_t seq, const uint8_t *data, uint32_t len, uint64_t now_us);

unsigned hv_tcp_input(struct hv_tcb *tcb, struct hv_env *env, struct hv_seg *seg, uint64_t now_us);

/* Next segment to put on the wire (data, retransmission, ACK, probe), or false. Committed when it returns true: the caller has made
 * sure that the SQ has room. References env->sq_next. */
bool hv_tcp_output(struct hv_tcb *tcb, struct hv_env *env, struct hv_tx *tx, uint64_t now_us);

/* Small-message shortcut: when `len` octets, less than a full segment, may go out at once, fills *tx whose sge points at `data` itself
 * (inline_ok), returns len; the caller posts, rings the doorbell, then calls hv_tcp_send_commit() which copies the octets into the
 * retransmit queue. 0: take hv_tcp_write()+hv_tcp_output(). Nothing has changed in the TCB before the commit. */
uint32_t hv_tcp_send_fast(struct hv_tcb *tcb, struct hv_env *env, const void *data, uint32_t len, struct hv_tx *tx, uint64_t now_us);
void hv_tcp_send_commit(struct hv_tcb *tcb, struct hv_env *env, const void *data, uint32_t len, uint64_t now_us);

/* Queue octets. Returns how many were taken (may be less than len: send buffer or chunks exhausted; 0 = none, wait for WRITABLE).
 * more: MSG_MORE. *act gets HV_TCP_OUT. */
uint32_t hv_tcp_write(struct hv_tcb *tcb, struct hv_env *env, const void *data, uint32_t len, bool more, unsigned *act, uint64_t now_us);
uint32_t hv_tcp_write_room(const struct hv_tcb *tcb);  /* octets write() would take now */
bool hv_tcp_writable(const struct hv_tcb *tcb);        /* EPOLLOUT as tcp_poll() computes it: free >= a third, NOTSENT_LOWAT */

/* Copy out at most len in-order octets (dst NULL = discard); peek leaves them. *act gets HV_TCP_OUT when a window update is due. */
uint32_t hv_tcp_read(struct hv_tcb *tcb, struct hv_env *env, void *dst, uint32_t len, bool peek, unsigned *act, uint64_t now_us);
uint32_t hv_tcp_readable(const struct hv_tcb *tcb);    /* SIOCINQ */
uint32_t hv_tcp_rx_held(const struct hv_tcb *tcb);     /* truesize of the receive buffers it holds, out-of-order ones too */
uint32_t hv_tcp_outq(const struct hv_tcb *tcb);        /* SIOCOUTQ: unacked + unsent */
uint32_t hv_tcp_outq_nsd(const struct hv_tcb *tcb);    /* SIOCOUTQNSD: unsent */

/* Timers. deadline: absolute now_us at which hv_tcp_timeout() wants to run, UINT64_MAX = none. Calling early is harmless. */
uint64_t hv_tcp_deadline(const struct hv_tcb *tcb);
unsigned hv_tcp_timeout(struct hv_tcb *tcb, struct hv_env *env, uint64_t now_us);
int hv_tcp_error(const struct hv_tcb *tcb);

/* Reader is about to sleep / batch is over: lets a held ACK go if one is due now. */
unsigned hv_tcp_ack_flush(struct hv_tcb *tcb, uint64_t now_us);

/* Options, kernel meaning. */
enum hv_tcp_opt { HV_TCP_NODELAY, HV_TCP_CORK, HV_TCP_QUICKACK, HV_TCP_KEEPALIVE, HV_TCP_KEEPIDLE, HV_TCP_KEEPINTVL, HV_TCP_KEEPCNT,
	HV_TCP_USER_TIMEOUT, HV_TCP_NOTSENT_LOWAT, HV_TCP_WINDOW_CLAMP, HV_TCP_RCVBUF, HV_TCP_SNDBUF, HV_TCP_TOS, HV_TCP_TTL,
	HV_TCP_CONGESTION /* HV_TCP_CC_*, the order of HVACCEL_CC */ };
enum { HV_TCP_CC_CUBIC, HV_TCP_CC_RENO };
unsigned hv_tcp_setopt(struct hv_tcb *tcb, enum hv_tcp_opt opt, uint32_t val, uint64_t now_us);

/* Export for demotion: fills *img except rcv/snd pointers (lengths are set); then hv_tcp_export_rcv/snd copy the octets. */
void hv_tcp_export(const struct hv_tcb *tcb, struct hv_tcp_image *img, uint64_t now_us);
void hv_tcp_export_rcv(const struct hv_tcb *tcb, uint8_t *dst); /* img->rcv_len octets */
void hv_tcp_export_snd(const struct hv_tcb *tcb, uint8_t *dst); /* img->snd_len octets */
/* Out-of-order intervals, in order of sequence; cursor starts at 0. */
bool hv_tcp_export_ooo(const struct hv_tcb *tcb, uint32_t *cursor, uint32_t *seq, const uint8_t **data, uint32_t *len);
/* Give every buffer and chunk back to env. The TCB is dead afterwards. */
void hv_tcp_release(struct hv_tcb *tcb, struct hv_env *env);

/* The kernel has learnt another path MTU (octets of IP packet). */
unsigned hv_tcp_set_pmtu(struct hv_tcb *tcb, uint32_t pmtu, uint64_t now_us);

/* Peer's MAC changed (neighbour update). */
void hv_tcp_set_l2(struct hv_tcb *tcb, const uint8_t *hdr_l2, uint32_t l2_len);
const struct hv_tuple *hv_tcp_tuple(const struct hv_tcb *tcb);

/* Figures for TCP_INFO and the tools. */
struct hv_tcp_stat {
	uint32_t srtt_us, rttvar_us, min_rtt_us, rto_us, cwnd, ssthresh, snd_mss, rcv_mss, unacked, sacked, lost, retrans, rcv_wnd, snd_wnd,
	    rcv_space, reordering, ca_state, retransmits, probes, backoff, ato_us, pmtu, data_segs_in, data_segs_out;
	uint64_t bytes_sent, bytes_acked, bytes_received, bytes_retrans, segs_in, segs_out;
	uint32_t total_retrans;
	uint64_t last_rx_us, last_tx_us;
};
void hv_tcp_stat(const struct hv_tcb *tcb, struct hv_tcp_stat *st);

/* Invariants; false and a static text in *what on violation. Called after every step by tests, never in release paths. */
bool hv_tcb_check(const struct hv_tcb *tcb, const struct hv_env *env, const char **what);

/* Chunks whose WQE has completed go back to the free list. */
void hv_env_reap(struct hv_env *env);

#endif
