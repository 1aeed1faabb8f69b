/*
 * internal.h - struct hv_vf and what the files of src/vf share.
 *
 *   verbs.c     the library: loading, errno -> reason
 *   discover.c  upper netdev -> pair, with links.c (rtnetlink) and rdma.c (RDMA netlink, sysfs, GID tables); shares discover.h
 *   plan.c      how the registered memory is divided (pure)
 *   open.c      a pair -> an opened hv_vf, and back
 *   ring.c      data path
 *   txsum.c     checksums for devices that compute none (pure)
 *   flow.c      steering rules
 *   event.c     completion channel, async events, fork
 *
 * Locks: none here. The ring lock of the engine covers the data path, the channel, the counters and
 * the list of flows; open and close are made by one thread; flow_add by any number of them, beside all that: it changes nothing in hv_vf.
 */
#ifndef HV_VF_INTERNAL_H
#define HV_VF_INTERNAL_H

#include "vf/verbs.h"

#define HV_VF_WC_BATCH 32u
#define HV_VF_REFILL_BATCH 32u
#define HV_VF_RQ_FEW 256u
#define HV_VF_REFILL_MIN 8u      /* posting fewer buffers at a time costs more than it brings */
#define HV_VF_CHUNK 8192u
#define HV_VF_INLINE_WANT 192u   /* frames up to that many octets travel within the WQE: headers and about 130 octets of payload */
#define HV_VF_SGE (HV_TX_SEG_MAX + 1u)

/* Division of the one memory region. */
struct hv_vf_plan {
	uint32_t rx_size, rx_bufs, rq;  /* octets of a receive buffer, number of them, depth of the receive queue */
	uint32_t slot_size, sq;         /* octets of a send slot (headers, copied payload), depth of the send queue = number of slots */
	uint32_t chunks;                /* of HV_VF_CHUNK octets */
	size_t off_rx, off_chunk, off_slot, total;
};
/* wr_max: the device's limit for queue depths. False: lim->mem_bytes is too little for that MTU. */
bool hv_vf_plan(struct hv_vf_plan *p, uint32_t mtu, const struct hv_vf_limits *lim, uint32_t wr_max);

struct hv_vf_flow {
	struct hv_vf_flow *next, **prev;
	struct ibv_flow *flow;
	bool later;
};

struct hv_vf {
	/* data path */
	struct ibv_qp *qp;
	struct ibv_cq *rcq, *scq;
	uint32_t sq_next, sq_done, sq; /* sq: power of two */
	uint32_t rq_posted, rq;
	uint32_t rq_want, rq_quiet; /* buffers to keep posted: few while traffic is light, so that they stay in the cache; batches that were small */
	uint32_t lkey, inline_max, tso_max, slot_size;
	bool tx_csum;
	bool broken;             /* a completion with an error: the QP does nothing any more */
	bool async_lost;
	uint8_t *slots;
	uint64_t *post_ns;       /* [sq] */
	struct hv_buf *bufs;     /* [plan.rx_bufs] */
	struct hv_buf *stash;    /* buffers of failed receives, until the next refill */
	uint32_t n_stash;
	struct hv_vf_counters n;
	struct ibv_send_wr swr;
	struct ibv_sge ssge[HV_VF_SGE];
	struct ibv_recv_wr rwr[HV_VF_REFILL_BATCH];
	struct ibv_sge rsge[HV_VF_REFILL_BATCH];

	/* control */
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct ibv_comp_channel *channel;
	struct hv_chunk *chunks; /* [plan.chunks] */
	struct hv_vf_flow *flows;
	uint32_t flows_later;    /* of them, to be destroyed by hv_vf_flow_sweep() */
	uint8_t *mem;
	size_t mem_len;
	struct hv_vf_plan plan;
	struct hv_vf_pair pair;
};

/* flow.c: the verbs form of a rule in buf; returns its size. */
union hv_vf_rule {
	struct ibv_flow_attr attr;
	uint8_t buf[sizeof(struct ibv_flow_attr) + sizeof(struct ibv_flow_spec_eth) + sizeof(struct ibv_flow_spec_ipv6) +
		sizeof(struct ibv_flow_spec_tcp_udp)];
};
size_t hv_vf_rule(union hv_vf_rule *r, const struct hv_tuple *t, const uint8_t mac[6]);
enum hv_vf_why hv_vf_trial_flow(struct hv_vf *vf, int *errp);

/* txsum.c: writes IPv4 header and TCP/UDP checksums into hdr, which describes the same headers as tx->hdr. */
void hv_vf_txsum(const struct hv_tx *tx, uint8_t *hdr);

/* ring.c: posts every buffer that the receive queue takes; for open. 0 or errno. */
int hv_vf_post_initial(struct hv_vf *vf);

#endif
