/*
 * plan.c - how the ring's one memory region is divided between receive buffers, send chunks and send slots. Pure; used by open.c.
 *
 * Half goes to receive buffers: as many as are posted again wait for readers who are behind. A send slot holds the headers of one WQE and, for payload
 * that the caller doesn't keep, a copy of it. What is left are the chunks behind the send queues of TCP.
 */
#include <assert.h>
#include <string.h>
#include "vf/internal.h"

#define PAGE 4096u
#define DEPTH_MIN 16u

static uint32_t pow2_floor(uint32_t v)
{
	return v == 0 ? 0 : 1u << (31 - __builtin_clz(v));
}

static uint32_t round_up(uint32_t v, uint32_t to)
{
	return (v + to - 1) / to * to;
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

bool hv_vf_plan(struct hv_vf_plan *p, uint32_t mtu, const struct hv_vf_limits *lim, uint32_t wr_max)
{
	uint32_t total = lim->mem_bytes / PAGE * PAGE, frame = mtu + 18; /* Ethernet and one VLAN tag */
	uint32_t rx_bytes, slot_bytes;

	memset(p, 0, sizeof *p);
	if (mtu > 65535)
		return false;
	p->rx_size = frame <= 2048 ? 2048 : round_up(frame, 1024);
	p->slot_size = round_up(HV_TX_HDR_MAX + mtu, 64);
	p->sq = pow2_floor(least(lim->tx_slots, wr_max));
	while (p->sq >= DEPTH_MIN && (uint64_t)p->sq * p->slot_size > total / 4)
		p->sq /= 2;
	slot_bytes = round_up(p->sq * p->slot_size, PAGE);
	p->rx_bufs = total / 2 / p->rx_size;
	p->rq = least(least(lim->rx_slots, p->rx_bufs / 2), wr_max);
	rx_bytes = round_up(p->rx_bufs * p->rx_size, PAGE);
	if (p->sq < DEPTH_MIN || p->rq < DEPTH_MIN || rx_bytes + slot_bytes + HV_TX_SEG_MAX * HV_VF_CHUNK > total)
		return false;
	p->chunks = (total - rx_bytes - slot_bytes) / HV_VF_CHUNK;
	p->off_rx = 0;
	p->off_chunk = rx_bytes;
	p->off_slot = p->off_chunk + (size_t)p->chunks * HV_VF_CHUNK;
	p->total = p->off_slot + slot_bytes;
	assert(p->total <= lim->mem_bytes);
	return true;
}
