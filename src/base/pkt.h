/*
 * pkt.h - the packet memory types that stack, vf and engine share.
 *
 * Types only, no functions with side effects, no includes beyond <stdint.h>: src/stack includes it and must stay pure.
 * Owner rules (who may touch what, when) stand with each type. Every instance belongs to one ring and is protected by that
 * ring's lock.
 */
#ifndef HV_PKT_H
#define HV_PKT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * One receive buffer: a fixed slot of registered memory that one WQE points to. Owned by the ring while posted, by the engine
 * between completion and hv_tcp_input()/hv_udp_input(), by a TCB or UDP queue while it holds unread octets, and given back
 * through hv_env.free_rx. `data`/`len` shrink as octets are consumed.
 */
struct hv_buf {
	struct hv_buf *next;
	uint8_t *data;   /* first octet of interest: frame start when fresh, unread payload when queued */
	uint32_t len;    /* octets at data */
	uint32_t seq;    /* TCP: sequence number of data[0] while queued */
	uint8_t *base;   /* start of the slot, never changes */
	uint32_t cap;    /* size of the slot, octets */
	uint32_t lkey;   /* of the memory region that holds the slot */
	uint32_t idx;    /* slot number, the WQE's wr_id */
	uint32_t meta;   /* UDP: offset of the IP header from base, for addresses and cmsgs */
	uint64_t rx_ns;  /* CLOCK_MONOTONIC of the poll that found it */
};

/* One piece of registered memory for octets to send. Owned by a TCB's send queue from write() until acked *and* the SQ has
 * completed the last WQE that referenced it (last_sq): reusing it earlier would put another connection's octets on the wire. */
struct hv_chunk {
	struct hv_chunk *next;
	uint8_t *base;
	uint32_t cap;
	uint32_t lkey;
	uint32_t off;     /* first octet still needed */
	uint32_t end;     /* one past the last octet written */
	uint32_t last_sq; /* SQ index (hv_env.sq_next when it was referenced last), compared modulo 2^32 with hv_env.sq_done */
	bool on_wire;     /* last_sq is meaningful */
};

#define HV_TX_HDR_MAX 128u /* eth+vlan (18) + IPv6 (40) + TCP with options (60) = 118 */
#define HV_TX_SEG_MAX 8u

struct hv_sge {
	const uint8_t *addr;
	uint32_t len;
	uint32_t lkey;
};

/* One frame (or, with mss != 0, one TSO burst) to be sent: headers by value, payload by reference. Payload entries point into
 * hv_chunk memory that stays put until completion, or, with inline_ok, into memory that need only live until hv_vf_tx()
 * returns. L3/L4 checksum fields are left zero / pseudo-header-less: hv_vf_tx() asks the device for them (or fills them). */
struct hv_tx {
	uint16_t hdr_len;  /* octets of hdr in use: eth .. end of L4 header */
	uint8_t l3_off;    /* of the IP header in hdr */
	uint8_t l4_off;    /* of the TCP/UDP header in hdr */
	uint16_t mss;      /* 0: one frame; else TSO with that payload size per frame */
	uint8_t nsge;
	bool inline_ok;    /* payload memory is only valid during the call */
	uint32_t payload;  /* sum of sge lengths */
	struct hv_sge sge[HV_TX_SEG_MAX];
	uint8_t hdr[HV_TX_HDR_MAX] __attribute__((aligned(16)));
};

/* Pools and send-queue progress of one ring, handed to every stack call. Filled and emptied by the engine. */
struct hv_env {
	struct hv_buf *free_rx;     /* stack pushes buffers here that it no longer needs; engine re-posts them */
	uint32_t n_free_rx;
	struct hv_chunk *free_tx;   /* stack takes chunks here for write() and pushes released ones */
	uint32_t n_free_tx;
	struct hv_chunk *wait_tx;   /* acked but last_sq not completed; hv_env_reap() moves them to free_tx */
	uint32_t sq_next;           /* index the next posted WQE will get */
	uint32_t sq_done;           /* every index before this one has completed */
	uint32_t rx_total;          /* receive buffers in the ring's pool */
	uint32_t tso_max;           /* octets of payload in one TSO burst, 0 = no TSO */
};

#endif
