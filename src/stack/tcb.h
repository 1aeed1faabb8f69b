/*
 * tcb.h - struct hv_tcb and what the files of src/stack need of each other.
 *
 * Private to src/stack (tests may look inside). Protected by the ring's lock. Layout: lines 0-4 are all that a request/response
 * exchange touches (line 4 mostly for reading); everything else is cold. Windows are kept as right edges: there is no
 * "SND.WND relative to what" question.
 *
 * Transmit records (struct hv_xrec) describe what is in flight, in order, without holes: they cover [snd_una, snd_nxt) exactly.
 * While one burst is in flight, its record is implicit: rec_n == 0, sent at timed_us, never retransmitted. That is the common case of
 * request/response and costs nothing. hv_rec_materialize() makes it explicit.
 *
 * pipe (RFC 6675) = flight - sacked_out - lost_out - reno_sacked; each record is in exactly one state, so no octet is counted twice.
 */
#ifndef HV_TCB_H
#define HV_TCB_H

#include <errno.h>
#include <string.h>

#include "stack/seq.h"
#include "stack/tcp.h"
#include "stack/wire.h"

#define HV_NEVER UINT64_MAX
#define hv_likely(x) __builtin_expect(!!(x), 1)
#define hv_unlikely(x) __builtin_expect(!!(x), 0)
#define HV_COLD __attribute__((cold, noinline))
#define HV_INLINE inline __attribute__((always_inline))

/* Constants; names as in Linux where there is one. Times in us. */
#define HV_RTO_MIN 200000u /* RFC 6298 2.4 wants a second for the whole, Linux this for the part that isn't SRTT */
#define HV_RTO_MAX 120000000u
#define HV_RTO_INIT 1000000u
#define HV_DELACK 40000u
#define HV_QUICKACK_US 1000u /* quick mode: the reader gets that long to answer before the ACK goes alone */
#define HV_CORK_MAX 200000u
#define HV_CHALLENGE_US 500000u
#define HV_PROBE_ACK_US 20000u
#define HV_RETRIES2 15u
#define HV_R2_MIN 100000000u /* RFC 9293 3.8.3 */
#define HV_MAX_QUICKACKS 16u
#define HV_IW_SEGS 10u
#define HV_DUPTHRESH 3u
#define HV_MSS_MIN 48u /* as tcp_min_snd_mss: 40 octets of options and 8 of text */
#define HV_MSS_DEFAULT 536u
#define HV_COPYBREAK 256u
#define HV_OOO_MAX 1024u
#define HV_CWND_MAX (1u << 30)
#define HV_SSTHRESH_INF 0x7fffffffu
#define HV_PRED_NEVER 0xffffffffu
#define HV_MIN_RTT_WINDOW_US (300ull * 1000000) /* as net.ipv4.tcp_min_rtt_wlen */
#define HV_PAWS_IDLE_US (24ull * 86400 * 1000000)
#define HV_XREC_EMBED 8u

/* tcpi_ca_state's numbers. CWR: cwnd stays until what was sent when a mark was answered is acknowledged. */
enum { HV_CA_OPEN, HV_CA_DISORDER, HV_CA_CWR, HV_CA_RECOVERY, HV_CA_LOSS };

/* What rtx_at is for. One timer, like the kernel's: these never need to run at the same time. From PERSIST on it is the window that is
 * waited for, or what isn't known yet. */
enum { HV_RTX_OFF, HV_RTX_RTO, HV_RTX_TLP, HV_RTX_REO, HV_RTX_PERSIST, HV_RTX_PUSH, HV_RTX_IMPORT };

/* tf */
enum {
	TF_TS = 1u << 0,         /* timestamps negotiated */
	TF_SACK = 1u << 1,
	TF_TS_KNOWN = 1u << 2,   /* ts_recent is meaningful */
	TF_ACK_PEND = 1u << 3,   /* in-order octets not acknowledged yet: a delayed ACK is armed */
	TF_ACK_NOW = 1u << 4,    /* an ACK must go with the next hv_tcp_output() */
	TF_NODELAY = 1u << 5,
	TF_CORK = 1u << 6,
	TF_MORE = 1u << 7,       /* the last write had MSG_MORE */
	TF_PUSH = 1u << 8,       /* override SWS avoidance, Nagle and cork once */
	TF_PINGPONG = 1u << 9,   /* interactive: ACKs ride on replies */
	TF_V6 = 1u << 10,
	TF_NOSPACE = 1u << 11,   /* a write came up short: WRITABLE is owed */
	TF_PROBE = 1u << 12,     /* send a window or keepalive probe */
	TF_TLP = 1u << 13,       /* send a tail loss probe */
	TF_HEAD = 1u << 14,      /* retransmit one segment at snd_una, whatever cwnd says */
	TF_TLP_OUT = 1u << 15,   /* a probe is outstanding; tlp_end is valid */
	TF_IMPORT = 1u << 16,    /* the kernel may have sent up to import_end */
	TF_ECN = 1u << 17,
	TF_ECE = 1u << 18,       /* echo ECE until CWR (RFC 3168 6.1.3) */
	TF_CWR = 1u << 19,       /* put CWR on the next new segment */
	TF_KEEPALIVE = 1u << 20,
	TF_DEAD = 1u << 21,      /* timed out or released */
	TF_TLP_REXMIT = 1u << 22,/* the outstanding probe was a retransmission */
	TF_RACK_REO = 1u << 23,  /* reordering has been seen on this path */
	TF_RACK_VALID = 1u << 24,
	TF_UNDO = 1u << 25,      /* undo_* hold the state before the last reduction */
	TF_RENO = 1u << 26,      /* Reno instead of CUBIC */
	TF_QUICKED = 1u << 27,   /* the last octets were acknowledged without waiting for a reply */
	TF_CWND_LIM = 1u << 28,  /* output was stopped by cwnd: lim_end is valid */
	TF_NOMEM = 1u << 30,     /* in-order octets were refused: the next ACK says window 0, as the kernel's does */
	TF_LOWAT = 1u << 31,     /* TCP_NOTSENT_LOWAT is set */
	TF_UNDO_RX = 1u << 29,   /* something was retransmitted since undo_* were saved, or was still out then; undo_tsval is valid */
	/* see hv_fast_edge() */
	TF_FAST_STOP = TF_CORK | TF_MORE | TF_DEAD | TF_PROBE | TF_TLP | TF_TLP_OUT | TF_HEAD | TF_ECE | TF_CWR | TF_IMPORT | TF_NOMEM,
};

/* F-RTO: off; the head was retransmitted; its ACK is answered by new data; that was sent */
enum { HV_FRTO_OFF, HV_FRTO_HEAD, HV_FRTO_NEW, HV_FRTO_SENT };

/* Record states */
enum { XR_PLAIN, XR_SACKED, XR_LOST, XR_RETX };
#define XRF_REXMIT 2u /* retransmitted by us, or it may have been by the kernel: its arrival proves nothing about the original */
#define XRF_KERNEL 4u /* sent by the kernel, at a time that isn't known */
#define XRF_EVER 1u /* retransmitted at some time, or sent by the kernel: no RTT sample (Karn) */
struct hv_xrec {
	uint32_t seq, end, xmit_us;
	uint8_t st, flags;
	uint16_t pad;
};

struct hv_block {
	uint32_t start, end;
};

struct hv_cubic {
	uint32_t w_max, origin, w_est, k_ms, est_acc, cwnd_prior; /* w_max 0: unknown */
	uint64_t epoch_us; /* 0: no epoch */
};

/* RFC 9406; all zero is "no round yet". RTTs in us, 0 = none. */
struct hv_hystart {
	uint32_t round_end, last_min, cur_min, css_base;
	uint16_t samples;
	uint8_t css_rounds; /* left; 0: not in conservative slow start */
	bool started;
};

struct hv_tcb {
	/* line 0: every segment, both directions */
	_Alignas(64) uint32_t rcv_nxt;
	uint32_t rcv_edge;   /* right edge as advertised; never shrinks */
	uint32_t last_ack;   /* Last.ACK.sent, RFC 7323 */
	uint32_t rcv_copied; /* next octet the reader gets */
	uint32_t ts_recent;
	uint32_t pred;       /* the segment word that prediction accepts */
	uint32_t snd_una, snd_nxt, snd_end;
	uint32_t snd_edge;   /* right edge that the peer gave us */
	uint32_t snd_wl1;
	uint32_t fast_edge;  /* octets up to here may leave as they come, a segment each, without further checks */
	uint64_t rtx_at, ack_at;
	/* line 1: queues, window, RTT */
	struct hv_buf *rx_head, *rx_tail;
	struct hv_chunk *tx_head, *tx_tail;
	uint32_t cwnd;
	uint32_t rx_charge;  /* truesize of everything that the receive side holds */
	uint32_t rcvbuf;
	uint32_t timed_us;   /* when the implicit record was sent */
	uint32_t srtt8;
	uint32_t tf;
	uint16_t mss, rcv_mss;
	uint8_t snd_wscale, rcv_wscale, ca, rtx_kind;
	/* line 2: header template; 18 + 40 + 4 = 62 octets for VLAN + IPv6 + ports */
	uint8_t hdr[62];
	uint8_t hdr_len;     /* up to and with the ports */
	uint8_t l3_off;
	/* line 3 */
	uint64_t last_rx_us, last_tx_us;
	uint64_t bytes_in;
	uint32_t wnd_keep;   /* while the peer has more window than this left, the right edge stays: see hv_rcv_window() */
	uint32_t tx_lead;    /* the first word of struct hv_tx for a segment without SACK blocks, HV_TX_LEAD() */
	struct hv_tcp_counters *cnt;
	uint32_t ts_off, rttvar4, snd_sml, sndbuf, max_wnd;
	uint32_t min_rtt;    /* 0: none yet, as always before the first sample; at most HV_RTO_MAX / 2 */
	/* line 4 */
	uint32_t segs_in, segs_out;
	uint32_t ssthresh;
	uint32_t peer_delack_us; /* how long the peer was seen to sit on an ACK; part of the probe timeout */
	uint16_t rec_head, rec_n, rec_cap;
	uint8_t nrsack, quick;
	uint8_t backoff, nrtx, probes;
	uint8_t ndsack;          /* 1: dsack is to be reported */
	uint32_t lost_out;
	uint32_t rwnd_lim;       /* rcvbuf and window_clamp as a window: what an empty queue may advertise */
	uint32_t adv_edge;       /* what the last hv_tcp_send_fast() advertised; its commit makes it rcv_edge */
	uint64_t min_rtt_at, ts_recent_at;
	uint64_t bytes_acked;
	/* bulk: bursts, several segments in flight */
	uint32_t sacked_out, reno_sacked;
	struct hv_chunk *tx_cur; /* chunk that holds snd_nxt, or NULL */
	struct hv_xrec *rec;
	uint32_t tx_cur_base;    /* sequence number of index 0 of tx_cur */
	uint32_t lim_end;        /* with TF_CWND_LIM: up to here it was cwnd that limited what is in flight */
	/* cold: loss recovery */
	struct hv_chunk *rec_chunk; /* lent by the pool when the embedded records don't suffice */
	struct hv_buf *ooo_head, *ooo_tail;
	uint8_t *aux;            /* imported unread octets that come before rx_head */
	struct hv_chunk *late_chunk; /* holds aux instead of the caller's memory, see hv_rcv_late() */
	uint32_t aux_len;
	uint32_t ooo_n;
	struct hv_block rsack[4];/* most recent first, RFC 2018 section 4 */
	struct hv_block dsack;
	uint32_t recover, recover_fs, prr_delivered, prr_out;
	uint32_t rack_xmit_us, rack_end, rack_rtt, rack_fack;
	uint32_t rack_mult, rack_persist, rack_round_end;
	uint32_t tlp_end;
	uint32_t undo_cwnd, undo_ssthresh, undo_una, undo_rexmit, undo_tsval;
	uint32_t rexmit_us; /* when something was retransmitted last */
	uint32_t cwr_end;
	uint32_t import_end;
	uint32_t min_rtt_prev;
	struct hv_cubic cubic, undo_cubic;
	uint32_t cubic_ms;       /* when CUBIC last had a say */
	struct hv_hystart hystart;
	/* cold: the rest */
	struct hv_tuple tuple;
	uint64_t challenge_at;   /* earliest time of the next challenge ACK */
	uint64_t probe_ack_at;   /* the same for answers to probes */
	uint64_t stall_us;       /* when the oldest unacknowledged octet was first sent, while nrtx or probes != 0 */
	uint64_t ka_at;
	uint32_t ka_idle_s, ka_intvl_s, ka_cnt, ka_sent;
	uint32_t user_timeout_ms;
	uint32_t notsent_lowat, window_clamp;
	uint32_t mss_clamp, pmtu;
	uint32_t rcvbuf_max, sndbuf_max; /* autotuning's bounds */
	uint32_t drs_seq, drs_space; /* first octet of this measurement; what the reader took in the best one so far */
	uint32_t drs_rtt8, drs_win_seq; /* RTT as a receiver sees it; the window that is timed for it ends here */
	uint32_t rcv_tsecr, drs_tsecr; /* echoed last; used for a sample last */
	uint64_t drs_at, drs_win_at;
	uint64_t import_us;      /* our clock of timestamps began then */
	uint32_t pool_lim;       /* window that the ring's pool can bear */
	uint32_t rto_init;       /* until there is an RTT */
	uint64_t bytes_rexmit;
	uint32_t bytes_base;     /* of these octets the kernel has sent, see hv_tcp_stat() */
	uint32_t total_rexmit;
	uint32_t pure_in, pure_out; /* segments without data */
	int32_t err;
	uint8_t ttl, tos, dupacks;
	uint8_t frto;
	uint16_t bh_mss, bh_prev; /* black hole: bound on the MSS, 0 = none; the one that is being tried without, see pmtu.c */
	uint32_t bh_wait_s;
	uint64_t bh_at;
	struct hv_xrec embed[HV_XREC_EMBED];
};
_Static_assert(offsetof(struct hv_tcb, rx_head) == 64, "line 0");
_Static_assert(offsetof(struct hv_tcb, hdr) == 128, "line 1");
_Static_assert(offsetof(struct hv_tcb, last_rx_us) == 192, "line 2");
_Static_assert(offsetof(struct hv_tcb, segs_in) == 256, "line 3");
_Static_assert(offsetof(struct hv_tcb, sacked_out) == HV_TCB_HOT, "line 4");
_Static_assert(sizeof(struct hv_tcb) <= 1024, "budget of an idle connection");
_Static_assert(offsetof(struct hv_seg, has_ts) == offsetof(struct hv_seg, flags) + 1 &&
		   offsetof(struct hv_seg, ce) == offsetof(struct hv_seg, flags) + 2 &&
		   offsetof(struct hv_seg, nsack) == offsetof(struct hv_seg, flags) + 3,
    "prediction compares the four as one word");
#define HV_TX_LEAD(hdr_len, l3_off, l4_off) ((uint32_t)(hdr_len) | (uint32_t)(l3_off) << 16 | (uint32_t)(l4_off) << 24)
_Static_assert(offsetof(struct hv_tx, hdr_len) == 0 && offsetof(struct hv_tx, l3_off) == 2 && offsetof(struct hv_tx, l4_off) == 3,
    "HV_TX_LEAD");

/* ---- small shared pieces ---- */
static inline uint32_t hv_flight(const struct hv_tcb *t)
{
	return t->snd_nxt - t->snd_una;
}
static inline uint32_t hv_pipe(const struct hv_tcb *t)
{
	return hv_flight(t) - t->sacked_out - t->lost_out - t->reno_sacked;
}
static inline uint32_t hv_tsval(const struct hv_tcb *t, uint64_t now)
{
	/* milliseconds: now / 1000, exact below 2^54, by a multiplication alone */
	return (uint32_t)((unsigned __int128)now * (UINT64_MAX / 1000u + 1) >> 64) + t->ts_off;
}
/* How long ago did the stamp that is echoed leave? Milliseconds; false: nobody knows. What the kernel sent before the import has its
 * stamps, and ours are ahead of them by any amount (handoff.md 1.2 step 7). */
static inline bool hv_echo_age(const struct hv_tcb *t, uint32_t tsecr, uint64_t now, uint32_t *ms)
{
	*ms = hv_tsval(t, now) - tsecr;
	return tsecr != 0 && *ms <= HV_RTO_MAX / 1000 && *ms <= now / 1000 - t->import_us / 1000;
}
static inline void hv_buf_free(struct hv_env *env, struct hv_buf *b)
{
	b->next = env->free_rx;
	env->free_rx = b;
	env->n_free_rx++;
}
static inline void hv_set_rtx(struct hv_tcb *t, unsigned kind, uint64_t at)
{
	t->rtx_kind = (uint8_t)kind;
	t->rtx_at = at;
}
static inline uint32_t hv_min_rtt(const struct hv_tcb *t)
{
	return t->min_rtt_prev != 0 && t->min_rtt_prev < t->min_rtt ? t->min_rtt_prev : t->min_rtt;
}

/* rtt.c */
void hv_rtt_sample(struct hv_tcb *t, uint32_t us, uint64_t now);
void hv_rtt_min(struct hv_tcb *t, uint32_t us, uint64_t now);
/* Nothing but RFC 6298 2.3 is to be done with this sample. */
static inline bool hv_rtt_usual(const struct hv_tcb *t, uint32_t us, uint64_t now)
{
	return t->min_rtt != 0 && us - t->min_rtt < HV_RTO_MAX / 2 && now - t->min_rtt_at <= HV_MIN_RTT_WINDOW_US / 2;
}
static inline void hv_rtt_smooth(struct hv_tcb *t, uint32_t us)
{
	uint32_t err = us - (t->srtt8 >> 3);

	t->srtt8 += err; /* never 0: us isn't */
	if ((int32_t)err < 0)
		err = -err;
	t->rttvar4 += err - (t->rttvar4 >> 2);
}
static inline uint32_t hv_rto(const struct hv_tcb *t)
{
	uint32_t r;

	if (t->srtt8 == 0)
		return t->rto_init;
	r = (t->srtt8 >> 3) + hv_max32(t->rttvar4, HV_RTO_MIN);
	return hv_min32(r, HV_RTO_MAX);
}
uint64_t hv_rto_backed(const struct hv_tcb *t);

/* sndq.c: octets [snd_una, snd_end) in chunks */
uint32_t hv_snd_append(struct hv_tcb *t, struct hv_env *env, const uint8_t *data, uint32_t len);
void hv_snd_acked(struct hv_tcb *t, struct hv_env *env, uint32_t n);
uint32_t hv_snd_gather(struct hv_tcb *t, struct hv_env *env, uint32_t seq, uint32_t len, struct hv_tx *tx);
void hv_snd_copy(const struct hv_tcb *t, uint8_t *dst);
void hv_snd_release(struct hv_tcb *t, struct hv_env *env);
void hv_chunk_put(struct hv_env *env, struct hv_chunk *c);

/* rcvq.c: octets [rcv_copied, rcv_nxt), then intervals up to rcv_edge */
enum { HV_RCV_TAKEN = 0, HV_RCV_REFUSED = HV_TCP_DROP };
unsigned hv_rcv_inorder(
    struct hv_tcb *t, struct hv_env *env, struct hv_seg *seg, const uint8_t *data, uint32_t len); /* 0, KEPT or DROP; moves rcv_nxt */
unsigned hv_rcv_data(struct hv_tcb *t, struct hv_env *env, struct hv_seg *seg, uint64_t now);     /* any acceptable segment */
void hv_rcv_pull(struct hv_tcb *t, struct hv_env *env); /* out-of-order octets that have become in-order */
uint32_t hv_rcv_late(struct hv_tcb *t, struct hv_env *env, const uint8_t *data, uint32_t len);
void hv_rcv_late_done(struct hv_tcb *t, struct hv_env *env);
void hv_rcv_release(struct hv_tcb *t, struct hv_env *env);
/* The sender is slow or shall become so: what comes next is acknowledged at once, in conversations too (tcp_enter_quickack_mode()). */
static inline void hv_quick(struct hv_tcb *t)
{
	t->quick = HV_MAX_QUICKACKS;
	t->tf &= ~TF_PINGPONG;
}
/* The right edge that could be advertised now, before it is rounded; never behind rcv_edge. */
static inline uint32_t hv_rcv_window(const struct hv_tcb *t)
{
	uint32_t room = t->rx_charge < t->rcvbuf ? t->rcvbuf - t->rx_charge : 0, edge;

	/* Headers and the unused part of a slot cost room too, here as in the kernel, which must be able to take all of it back. */
	edge = t->rcv_nxt + hv_min32(room / 2 + room / 8, t->rwnd_lim);
	/* RFC 9293 3.8.6.2.2: move the edge only by something worth while. */
	if (hv_seq_diff(edge, t->rcv_edge) < (int32_t)hv_min32(t->rcv_mss, t->rwnd_lim / 2 + 1))
		edge = t->rcv_edge;
	return edge;
}
/* What rcv_edge - rcv_nxt must come down to before hv_rcv_window() can move the edge, whatever room there is. */
static inline uint32_t hv_wnd_keep(const struct hv_tcb *t)
{
	return t->rwnd_lim - hv_min32(hv_min32(t->rcv_mss, t->rwnd_lim / 2 + 1), t->rwnd_lim);
}
/* The window field for a segment with this acknowledgment, and the right edge that it promises. */
static inline uint32_t hv_rcv_advertise(const struct hv_tcb *t, uint32_t *edge)
{
	uint32_t e = t->rcv_edge, d = e - t->rcv_nxt, w;

	if (hv_unlikely(d <= t->wnd_keep)) {
		e = hv_rcv_window(t);
		d = e - t->rcv_nxt;
		if (d == 0) {
			*edge = e;
			return 0;
		}
	}
	w = ((d - 1) >> t->rcv_wscale) + 1; /* up: the edge must not seem to move back */
	*edge = t->rcv_nxt + (w << t->rcv_wscale);
	return w;
}

/* sack.c: records and scoreboard */
struct hv_ackinfo {
	uint32_t prior_una, prior_flight;
	uint32_t prior_fack;   /* rack_fack before this ACK: its own blocks come in any order */
	uint32_t acked;        /* octets that snd_una advances by */
	uint32_t delivered;    /* octets newly acked or sacked */
	uint32_t newly_lost;
	uint32_t rtt_first, rtt_last; /* of the oldest and newest record delivered by this ACK; 0 = none */
	bool dsack, dsack_tlp, sacked_new, dup;
	bool orig; /* octets sent before the RTO and never again have arrived */
};
static inline void hv_rec_set(struct hv_tcb *t, struct hv_xrec *r, uint8_t st)
{
	uint32_t len = r->end - r->seq;

	if (r->st == XR_SACKED)
		t->sacked_out -= len;
	else if (r->st == XR_LOST)
		t->lost_out -= len;
	r->st = st;
	if (st == XR_SACKED)
		t->sacked_out += len;
	else if (st == XR_LOST)
		t->lost_out += len;
}
void hv_rec_materialize(struct hv_tcb *t);
void hv_rec_sent(struct hv_tcb *t, struct hv_env *env, uint32_t seq, uint32_t end, uint32_t now32, unsigned flags);
uint32_t hv_rec_split(
    struct hv_tcb *t, struct hv_env *env, uint32_t i, uint32_t at); /* 1 if record i now ends at `at`, 0 if there was no room */
void hv_rec_acked(struct hv_tcb *t, uint32_t ack, struct hv_ackinfo *ai, const struct hv_seg *seg, uint64_t now);
void hv_sack_apply(struct hv_tcb *t, struct hv_env *env, const struct hv_seg *seg, struct hv_ackinfo *ai, uint64_t now);
void hv_rec_mark_all_lost(struct hv_tcb *t, bool forget_sacks);
void hv_rec_drop_storage(struct hv_tcb *t, struct hv_env *env);
static inline struct hv_xrec *hv_rec(const struct hv_tcb *t, uint32_t i)
{
	return &t->rec[t->rec_head + i];
}

/* recovery.c */
void hv_rack_delivered(struct hv_tcb *t, const struct hv_xrec *r, const struct hv_seg *seg, uint64_t now);
uint32_t hv_rack_detect(struct hv_tcb *t, struct hv_ackinfo *ai, uint64_t now); /* us until more will be lost; 0 = nothing pending */
uint32_t hv_recovery_ack(
    struct hv_tcb *t, struct hv_env *env, const struct hv_seg *seg, struct hv_ackinfo *ai, uint64_t now); /* the same */
void hv_prr(struct hv_tcb *t, const struct hv_ackinfo *ai);
void hv_enter_loss(struct hv_tcb *t, uint64_t now);
bool hv_enter_cwr(struct hv_tcb *t, uint64_t now);
void hv_enter_recovery(struct hv_tcb *t, uint64_t now);

/* undo.c */
void hv_undo_save(struct hv_tcb *t, uint64_t now);
void hv_undo_check(struct hv_tcb *t, const struct hv_seg *seg, const struct hv_ackinfo *ai);
/* F-RTO: new data goes before what is marked lost, until the next ACK tells whether the timeout was right. */
bool hv_frto_holds(struct hv_tcb *t);

/* ack.c */
unsigned hv_ack(struct hv_tcb *t, struct hv_env *env, const struct hv_seg *seg, uint64_t now);

/* cc: cubic.c, reno.c; see cc.h */

/* autotune.c */
void hv_rwnd_lim(struct hv_tcb *t);
void hv_rcv_autotune_init(struct hv_tcb *t, uint64_t now);
void hv_rcv_autotune(struct hv_tcb *t, uint64_t now);
void hv_snd_autotune(struct hv_tcb *t);

/* timer.c */
void hv_timer_rearm(struct hv_tcb *t, uint64_t now); /* after an ACK that moved something, or new data */
void hv_timer_sent(struct hv_tcb *t, uint64_t now);  /* after new data or a retransmission */
/* Probe timeout, RFC 8985 7.2, of a single segment, whose ACK the peer may delay. How long it really does is learnt from probes that
 * turn out needless, instead of adding the worst case of 200 ms: then the probe would never come before the RTO. */
static inline uint32_t hv_pto_single(const struct hv_tcb *t)
{
	uint32_t srtt = t->srtt8 >> 3;

	return srtt + hv_max32(srtt, t->rttvar4) + t->peer_delack_us;
}

/* output.c */
void hv_refresh(struct hv_tcb *t); /* fast_edge and pred, after every event */
static inline bool hv_nagle_holds(const struct hv_tcb *t)
{
	if ((t->tf & (TF_CORK | TF_MORE)) != 0)
		return true;
	/* Minshall's: only an earlier *small* segment holds this one */
	return (t->tf & TF_NODELAY) == 0 && hv_seq_gt(t->snd_sml, t->snd_una);
}
/* Before snd_nxt + 1: nothing may leave as it comes. Stays as it is while octets leave, but for Nagle's small segment. */
static inline uint32_t hv_fast_edge(const struct hv_tcb *t)
{
	if (((t->snd_end ^ t->snd_nxt) | (t->tf & TF_FAST_STOP) | t->ca | t->nrsack | t->ndsack) != 0)
		return t->snd_nxt;
	if ((t->tf & TF_NODELAY) == 0 && hv_seq_gt(t->snd_sml, t->snd_una))
		return t->snd_nxt;
	return hv_seq_min(t->snd_edge, t->snd_una + hv_min32(t->cwnd, t->sndbuf));
}
/* output has something to do (it may still find that it must wait) */
static inline bool hv_may_send(const struct hv_tcb *t)
{
	return ((t->snd_end ^ t->snd_nxt) | t->lost_out | (t->tf & (TF_ACK_NOW | TF_PROBE | TF_TLP | TF_HEAD))) != 0;
}
/* Did cwnd limit what is being acknowledged? Only then may it grow (RFC 7661's question, Linux's answer, which is one for all that was
 * in flight then). flight: before the ACK. */
static inline bool hv_cwnd_limited(struct hv_tcb *t, uint32_t flight)
{
	if ((t->tf & TF_CWND_LIM) == 0) {
		if (flight + t->mss <= t->cwnd)
			return t->cwnd < t->ssthresh && t->cwnd / 2 < flight;
		t->tf |= TF_CWND_LIM;
		t->lim_end = t->snd_nxt;
	}
	if (hv_seq_ge(t->snd_una, t->lim_end))
		t->tf &= ~TF_CWND_LIM;
	return true;
}
/* WRITABLE, if what an ACK has freed (or what output will send next because of it) makes the difference. */
unsigned hv_space_event(struct hv_tcb *t, bool was_writable);
static inline bool hv_space_watch(const struct hv_tcb *t)
{
	return (t->tf & (TF_NOSPACE | TF_LOWAT)) != 0 || t->snd_end - t->snd_una > t->sndbuf / 2;
}
void hv_sent_new(struct hv_tcb *t, struct hv_env *env, uint32_t len, uint32_t mss, uint64_t now);

/* state.c, pmtu.c */
void hv_mss_update(struct hv_tcb *t);
HV_COLD void hv_black_hole(struct hv_tcb *t, uint64_t now);
HV_COLD void hv_black_hole_retry(struct hv_tcb *t, uint64_t now);
HV_COLD void hv_max_wnd(struct hv_tcb *t, uint32_t wnd);

#endif
