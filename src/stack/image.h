/*
 * image.h - what crosses when a TCP connection changes tier.
 *
 * A plain value, host byte order for numbers, network order for addresses and ports. Filled by hv_promote() (src/failover) from
 * the kernel socket and by hv_tcp_export() from a TCB; consumed by hv_tcp_import() and hv_demote(). Octets themselves travel
 * beside it (rcv and snd pointers), in the order of their sequence numbers.
 */
#ifndef HV_IMAGE_H
#define HV_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

struct hv_tuple {               /* the wire tuple: what packets carry */
	uint8_t family;         /* 4 or 6 */
	uint8_t proto;          /* 6 or 17 */
	uint16_t lport, rport;  /* network order */
	uint32_t scope;         /* IPv6 link-local: ifindex, else 0 */
	uint8_t laddr[16], raddr[16]; /* network order; IPv4 in the first 4 octets, the rest zero */
};

#define HV_TCPO_TS 1u
#define HV_TCPO_SACK 2u
#define HV_TCPO_WS 4u
#define HV_TCPO_ECN 8u

struct hv_tcp_image {
	struct hv_tuple tuple;
	uint8_t opts;            /* HV_TCPO_* negotiated on the SYNs */
	uint8_t snd_wscale;      /* shift applied to windows we receive */
	uint8_t rcv_wscale;      /* shift applied to windows we send */
	uint8_t ttl, tos;
	uint32_t snd_una, snd_nxt, snd_end; /* snd_end = write_seq: una..nxt sent, nxt..end not yet; the kernel may still transmit its
	                                       queue before settle, so ACKs up to snd_end are acceptable */
	uint32_t rcv_nxt;
	uint32_t snd_wl1, snd_wnd, max_window;
	uint32_t rcv_wnd, rcv_wup; /* right edge advertised so far = rcv_wup + rcv_wnd; must never shrink */
	uint32_t mss_clamp;      /* as negotiated (peer's MSS option) */
	uint32_t snd_mss;        /* payload octets per segment now, options deducted */
	uint32_t pmtu;           /* path MTU, octets of IP packet */
	uint32_t ts_off;         /* TSval = now_ms + ts_off (even at hand-off) */
	uint32_t ts_recent;      /* 0 = unknown */
	bool ts_recent_valid;
	uint32_t srtt_us, rttvar_us, min_rtt_us, rto_us;
	uint32_t snd_cwnd, snd_ssthresh; /* segments */
	uint32_t rcvbuf, sndbuf; /* octets, as the kernel socket could hold */
	uint32_t rcvbuf_max, sndbuf_max; /* what they may grow to by themselves; 0: the program has fixed them */
	/* socket options that the stack has to honour; the rest live in the kernel socket */
	bool nodelay, cork, quickack;
	uint32_t user_timeout_ms;
	bool keepalive;
	uint32_t keepidle_s, keepintvl_s, keepcnt;
	uint32_t notsent_lowat;  /* 0xffffffff = unset */
	uint32_t window_clamp;   /* 0 = none */
	/* octets */
	uint8_t *rcv;            /* unread, rcv_nxt - rcv_len .. rcv_nxt */
	uint32_t rcv_len;
	uint8_t *snd;            /* snd_una .. snd_end */
	uint32_t snd_len;
};

#endif
