/*
 * sim.h - deterministic simulation of two stacks, a bad network between them, and the programs on top.
 *
 * Everything that happens follows from the seed: one event queue ordered by (time, order of insertion), one virtual clock in
 * microseconds, one generator. Single-threaded.
 */
#ifndef HV_SIM_H
#define HV_SIM_H

#include "host.h"
#include "pcap.h"
#include "prng.h"
#include "seg.h"

#include <stdio.h>

struct link_conf { /* one direction */
	uint64_t rate_bps;
	uint32_t queue, delay_us, jitter_us; /* octets, us, us */
	uint32_t loss, dup, reorder, corrupt, thin; /* parts per million */
	uint32_t ge_bad, ge_good, ge_loss;   /* Gilbert: good->bad, bad->good, loss while bad */
	uint32_t ce;                         /* marks instead of loss, parts per million */
	uint32_t mtu;                        /* octets of IP packet from mtu_at on; 0: never a limit */
	uint64_t mtu_at;
	bool silent;                         /* what is larger vanishes: nobody hears of it */
};

struct link_state {
	struct link_conf c;
	uint64_t free_at; /* transmitter busy until */
	uint64_t last_at; /* of the last frame */
	bool bad;
	uint32_t lost;    /* frames that never arrive, for whatever reason */
};

enum app_read { READ_EAGER, READ_PACED, READ_PAUSES };

struct app {
	/* script */
	uint32_t total;       /* octets that this side will have sent in all */
	uint32_t wr_max;      /* largest write */
	uint32_t think_us;    /* between writes, 0 = bulk */
	enum app_read mode;
	uint32_t rd_max, rd_us, pauses;
	uint32_t fast_ppm, more_ppm, opt_ppm;
	/* a conversation: messages of ask octets, written when so many of `answer` octets were read, or `ahead` more */
	uint32_t ask, answer, ahead; /* ask 0: each side writes when it likes */
	/* progress; stream offset = sequence number - base */
	uint32_t base;        /* sequence number of stream offset 0 */
	uint32_t written, read;
	bool blocked, wr_sched, rd_sched;
	/* shutdown(SHUT_WR) so long after the last octet was written */
	bool closes, close_sched, eof; /* eof: this side has read the end of the other's stream */
	bool to_edge;         /* that ends where the other's window does, if it comes close */
	uint32_t close_us;
};

/* Behind a path that swallows what is large, without a word: since when nothing has got through, and how long that may last, see hole.c. */
struct hole {
	uint64_t since, may, fast;
	bool waits;
};

/* The kernel's TCP after a demotion for good, see kernel.c. */
struct kern {
	bool on, shut, eof, fin_known, eager, sack; /* eof: the peer's FIN was reached; shut: ours is queued behind the last octet */
	uint32_t una, nxt, wnd_edge, wl1, cwnd, backoff; /* cwnd: segments */
	uint32_t rcv_nxt, edge, cap, size, recent, fin_seq;
	uint8_t *have; /* octets above rcv_nxt, by sequence number modulo size */
	uint32_t ts_off, ts_recent;
	uint64_t at;
};

struct side {
	struct host h;
	struct app app;
	struct hv_tuple tuple;
	struct hv_tcp_image img; /* while frozen */
	bool frozen;
	uint32_t moves;       /* still to do */
	uint32_t move_us;
	struct hv_buf *pend, **pend_tail; /* received, not polled yet */
	uint32_t poll_us;
	bool poll_sched, sq_sched, need_out, no_flush, late_sched;
	uint32_t sq_us;
	uint64_t timer_at;
	uint64_t spin_at;     /* timeouts run at this very instant ... */
	uint32_t spins;       /* ... so many */
	uint16_t mss;
	uint8_t ws;           /* shift of the windows that this side advertises */
	bool ts;
	/* what this side has put on the wire */
	uint32_t edge, edge_max; /* advertised right edge, last and highest */
	uint32_t sent_max;    /* highest sequence number + 1 sent, by stack or kernel */
	uint32_t sent_stack;  /* the same, by the stack alone */
	uint32_t import_end;  /* before this the kernel may have sent what the stack thinks is new; and a burst may begin there */
	uint32_t last_ack, last_tsval;
	bool seen_ack, seen_ts;
	uint64_t frames;
	/* octets that the "kernel" acked during a freeze, to be handed over at settle */
	uint8_t *late;
	uint32_t late_seq, late_len;
	uint32_t late_end;
	bool late_fin;        /* at late_end */
	struct kern kern;
	uint32_t dmg_seen;    /* damaged frames recognised */
	bool refused;         /* octets that fitted the window were refused for want of memory: the next window may be 0 */
	bool ece_may, ece_must; /* a CE mark arrived and no CWR since; _must: in a segment that counts for sure */
	uint64_t import_at;
	uint32_t import_srtt; /* a round trip is no longer than this, or began after the import */
	uint32_t icmp_mtu;    /* on its way, see EV_PMTU */
	struct hole hole;
};

enum ev_type { EV_ARRIVE, EV_POLL, EV_TIMER, EV_WRITE, EV_READ, EV_SQ, EV_MOVE, EV_THAW, EV_LATE, EV_PMTU, EV_KERN, EV_SHUT };

struct event {
	uint64_t at, order;
	enum ev_type type;
	uint8_t who;
	bool damaged;
	uint32_t len;
	uint8_t *frame;
};

/* Bulk transfers from side 0: how long the receiver waits for the next octet, and how long the sender for its next try, see bulk.c. */
struct stall {
	bool on;
	uint64_t moved, longest; /* when the receiver got its last octet; in us, of all */
	uint64_t since, may;     /* the sender waits since then, and so long at most */
	uint64_t rto, tlp;       /* counters seen last */
	uint32_t timeouts;       /* since there was an answer that tells the round trip */
};

/* One bulk transfer from side 0 to side 1, or more than one over the same links. */
struct bulk {
	const char *name;
	uint32_t octets;
	uint32_t rate_mbit, rtt_us, queue, loss, reorder, jitter_us; /* loss, reorder: ppm, loss in both directions */
};

struct world {
	uint64_t seed, now, order, progress_at, events;
	struct prng rng;
	struct event *heap;
	uint32_t n_heap, cap_heap;
	struct side side[2];
	struct link_state own[2], *link; /* [i]: from side i; several worlds may share one */
	uint64_t done_at;     /* everything was read at that time */
	struct stall stall;
	uint64_t dark_from[4], dark_to[4];
	uint32_t n_dark;
	bool keepalive, v6, ecn, verbose, twins;
	struct pcap *pcap;
	char fail[256];
};

struct world_opts {
	struct pcap *pcap;
	bool verbose, twins; /* twins: compare the shortcuts with the full path, see twin.h */
};

/* Runs one seed; true = passed. On failure w->fail says why. */
bool world_run(struct world *w, uint64_t seed, const struct world_opts *o);

/* bulk.c: the same for a transfer without chance in what the ends do. */
bool bulk_matrix(FILE *out);
bool bulk_fairness(FILE *out);
bool bulk_stalls(uint64_t from, uint64_t to, bool verbose);
void bulk_step(struct world *w);
void bulk_sent(struct world *w, uint32_t seq, uint32_t len);
void bulk_moved(struct world *w);
void bulk_answered(struct world *w, const struct hv_seg *seg, uint32_t una);

/* setup.c */
void world_setup(struct world *w);
void world_teardown(struct world *w);
/* setup.c: parts of it */
void setup_start(struct world *w);
void setup_tuples(struct world *w);
/* world.c */
/* One event; false: at rest, or failed. */
bool world_step(struct world *w);
void world_finish(struct world *w);
void world_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void world_push(struct world *w, uint64_t at, enum ev_type type, uint32_t who);
void world_push_frame(struct world *w, uint64_t at, uint32_t who, const uint8_t *frame, uint32_t len, bool damaged);
/* The segment in a sound frame that reaches a kernel: parsed in a copy, where its data stay. */
#define WORLD_FRAME 16384u
bool world_segment(struct world *w, uint32_t who, const uint8_t *frame, uint32_t len, uint8_t copy[WORLD_FRAME], struct hv_seg *g);
/* Consequences of a call into the stack of this side: output, ACKs, checks, timers, waking the program. */
void side_after(struct world *w, uint32_t who, unsigned acts);
/* link.c */
void link_send(struct world *w, uint32_t from, const uint8_t *frame, uint32_t len);
/* wire.c: called for every frame that a side sends; the host_wire_fn of that side. */
struct wire_arg { struct world *w; uint32_t who; bool kernel; };
void wire_out(void *arg, const uint8_t *frame, uint32_t len);
/* app.c */
uint8_t app_octet(const struct world *w, uint32_t who, uint32_t off);
void app_fill(const struct world *w, uint32_t who, uint32_t off, uint8_t *dst, uint32_t len);
void app_write(struct world *w, uint32_t who);
void app_read(struct world *w, uint32_t who);
void app_wake(struct world *w, uint32_t who, unsigned acts);
void app_kernel(struct world *w, uint32_t who); /* something has happened to the kernel's socket */
/* hole.c */
void hole_setup(struct world *w);
void hole_swallows(struct world *w, uint32_t from, const uint8_t *frame);
void hole_passes(struct world *w, uint32_t from, const uint8_t *frame, uint32_t len);
void hole_forget(struct side *s); /* a move */
void hole_judge(struct world *w); /* after each event */
/* move.c */
void move_freeze(struct world *w, uint32_t who);
void move_thaw(struct world *w, uint32_t who);
void move_late(struct world *w, uint32_t who);
/* A frame reaches the kernel socket of a frozen side. */
void move_arrive(struct world *w, uint32_t who, const uint8_t *frame, uint32_t len);
/* The stack has left a FIN alone. */
void move_fin(struct world *w, uint32_t who, const uint8_t *frame, uint32_t len);
void move_shutdown(struct world *w, uint32_t who);
/* kernel.c */
void kern_begin(struct world *w, uint32_t who); /* from the image; frees that */
void kern_shutdown(struct world *w, uint32_t who);
void kern_arrive(struct world *w, uint32_t who, const uint8_t *frame, uint32_t len);
void kern_timer(struct world *w, uint32_t who);
uint32_t kern_readable(const struct world *w, uint32_t who);
uint32_t kern_room(const struct side *s);
void kern_wrote(struct world *w, uint32_t who);
void kern_read(struct world *w, uint32_t who);
bool kern_at_rest(const struct side *s);

#endif
