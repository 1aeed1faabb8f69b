/*
 * script.h - packet scripts: what a script says (parse.c), what goes over the wire (packet.c), who is asked (core.c, kernel.c), and the
 * comparison (play.c). The language is described in README.md.
 *
 * Numbers of sequence space are relative here and in scripts: the SYN of each side is 0, its first octet 1. Times are microseconds.
 */
#ifndef HV_SCRIPT_H
#define HV_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SC_EVENTS 1024u
#define SC_NEVER UINT64_MAX
#define SC_ANY 0xffffffffu
#define SC_NO_LABEL (-1)

/* A segment: as a script wants it, or as it was seen. What has_* doesn't name isn't compared, or gets the obvious value. */
struct sc_pkt {
	uint64_t at;
	uint32_t seq, len, ack, wnd, min_wnd, urg;
	uint8_t flags, tos; /* tos: the two ECN bits only */
	bool has_seq, has_ack, has_wnd, has_ts, no_ts, has_tos, bad; /* bad: octets that aren't the stream's */
	uint32_t tsval, tsecr;
	bool has_val, has_ecr;
	int val_label, ecr_label; /* 0-25: a-z */
	unsigned nsack;
	uint32_t sack[4][2];
	/* SYN only */
	uint32_t mss;
	bool sackok;
	int wscale; /* -1: none */
};

/* Options of `open`. */
struct sc_open {
	uint32_t mss, rtt_ms, wnd, rcvbuf, sndbuf, clamp, maxseg;
	bool sack, ts, ecn;
	int wscale;
	char cc[16];
};

enum sc_kind { SC_OPEN, SC_IN, SC_OUT, SC_QUIET, SC_WRITE, SC_READ, SC_SHUTDOWN, SC_CLOSE, SC_SETOPT, SC_INFO, SC_POLL, SC_INQ, SC_OUTQ, SC_PMTU,
	SC_MOVE, SC_DEMOTES, SC_WAIT };
enum sc_side { SC_BOTH, SC_CORE, SC_KERNEL };
enum { SC_IN_READY = 1, SC_OUT_READY = 2, SC_HUP = 4 };

struct sc_cond {
	char field[16], op[3];
	uint32_t val, max;
};

struct sc_event {
	enum sc_kind kind;
	enum sc_side side;
	unsigned line;
	bool any;             /* '*': whenever it comes */
	bool range;           /* t0~t1 */
	uint64_t t0, t1;      /* after the event before */
	struct sc_pkt pkt;
	struct sc_open open;
	uint32_t n;           /* write, read, setopt's value, inq, outq, pmtu */
	bool more;
	int64_t want;         /* octets, 0: end of file, <0: -errno */
	char name[24];        /* setopt */
	unsigned mask, ready; /* poll */
	struct sc_cond cond[8];
	unsigned n_cond;
	char text[160];
};

struct sc_sysctl {
	char name[48], val[48];
};

struct sc_script {
	char file[256], title[200];
	struct sc_event *ev;
	unsigned n;
	struct sc_sysctl sysctl[8];
	unsigned n_sysctl;
	uint32_t late_ms; /* kernel: more lateness allowed */
};

/* parse.c. False: told on stderr. */
bool sc_parse(struct sc_script *s, const char *file);
void sc_free(struct sc_script *s);

/* What both sides share. One connection; the script plays the peer. */
struct sc_conn {
	bool v6;
	uint32_t iss, irs;     /* of the side under test, of the peer */
	unsigned snd_ws, rcv_ws; /* shifts of windows: peer's (in what we inject), side's (in what comes out) */
	bool ts, sack, ecn;
	uint16_t lport, rport;
	uint32_t last_tsval;   /* latest seen, relative to ts_base */
	uint32_t ts_base;      /* TSval of the first segment that came out; 0 in scripts */
	bool ts_base_known;
	uint32_t peer_nxt, last_wnd, last_ack;
	uint32_t label[26];
};

/* One side. Every call may run its clock up to the time given; nothing is sent by the side but what wait() hands out. */
/* What `info` can ask for, by these names. */
struct sc_figures { uint32_t cwnd, ssthresh, mss, ca, unacked, sacked, lost, retrans, total_retrans, rtt_ms, rto_ms, snd_wnd, notsent; };

struct sc_target {
	const char *name;
	struct sc_conn c;
	void *priv;
	bool ended;            /* the rest of the script isn't for this side */
	bool slipped;          /* this process wasn't scheduled in time: a failure proves nothing */
	char why[256];         /* a failure, in words */
	bool (*open)(struct sc_target *, const struct sc_open *);
	uint64_t (*now)(struct sc_target *);
	/* Wait until the time given or a segment comes out, whichever is first. True: *p is filled. */
	bool (*wait)(struct sc_target *, uint64_t until, struct sc_pkt *p);
	bool (*inject)(struct sc_target *, const struct sc_pkt *);
	/* Socket calls: octets or -errno. read checks the octets (-EILSEQ). */
	int64_t (*write)(struct sc_target *, uint32_t len, bool more);
	int64_t (*read)(struct sc_target *, uint32_t len);
	int64_t (*shutdown)(struct sc_target *);
	int64_t (*close)(struct sc_target *);
	int64_t (*setopt)(struct sc_target *, const char *name, uint32_t val);
	bool (*info)(struct sc_target *, struct sc_figures *);
	unsigned (*poll)(struct sc_target *);
	int64_t (*inq)(struct sc_target *);
	int64_t (*outq)(struct sc_target *);
	bool (*pmtu)(struct sc_target *, uint32_t mtu);
	bool (*move)(struct sc_target *);
	bool (*demotes)(struct sc_target *, const struct sc_event *);
	void (*end)(struct sc_target *);
	bool core;
};

struct sc_core_mode {
	bool v6, slow_send, no_predict;
};
bool sc_core_init(struct sc_target *t, const struct sc_core_mode *m);
bool sc_kernel_init(struct sc_target *t, const struct sc_script *s, bool v6);

/* play.c: 0 passed, 1 failed, 2 inconclusive (slipped). Tells on stdout. */
int sc_play(struct sc_target *t, const struct sc_script *s, bool verbose);

/* packet.c */
struct hv_tuple;
void sc_tuple(const struct sc_conn *c, struct hv_tuple *t, bool from_peer);
uint8_t sc_octet(bool peer, uint32_t rel);
/* IP packet in wire format -> *p, false: not of this connection. */
bool sc_decode(struct sc_conn *c, const uint8_t *ip, uint32_t len, struct sc_pkt *p);
/* Ethernet frame (14 octets of header) of what the peer sends. Returns its length. */
uint32_t sc_encode(const struct sc_conn *c, uint8_t *frame, const struct sc_pkt *p);
void sc_show(const struct sc_conn *c, char *buf, size_t size, const struct sc_pkt *p, bool want);

#endif
