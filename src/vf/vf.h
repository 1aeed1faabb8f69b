/*
 * vf.h - the VF: which device carries a flow, and one ring of hardware queues on it, over plain verbs.
 *
 * libibverbs is loaded with dlopen at the first hv_vf_open() (path: tunable HVACCEL_VERBS); nothing here is linked against it.
 * Control calls (open, close, flow_*) may take milliseconds and are made by the engine outside the ring lock where it can;
 * data calls (poll_*, tx, refill, arm) are made with the ring lock held and never block. Nothing here logs to the program's
 * streams except through hv_log().
 */
#ifndef HV_VF_H
#define HV_VF_H

#include "base/pkt.h"
#include "stack/image.h"

/* Why no VF could be used; texts in hv_vf_why_text(), one line each with the remedy. */
enum hv_vf_why {
	HV_VF_OK, HV_VF_NO_LIBRARY,  /* libibverbs missing or not loadable */
	HV_VF_NO_DEVICE,             /* no ib device belongs to that netdev or its slave */
	HV_VF_NOT_RUNNING,           /* VF netdev exists but isn't UP and RUNNING */
	HV_VF_PORT_DOWN, HV_VF_EPERM,/* CAP_NET_RAW missing */
	HV_VF_MEMLOCK,               /* registration refused: RLIMIT_MEMLOCK */
	HV_VF_NO_RAW_QP, HV_VF_NO_FLOW, /* trial QP or trial flow refused */
	HV_VF_BUSY,                  /* queue is in use by another process */
	HV_VF_NOMEM, HV_VF_OTHER,
};
const char *hv_vf_why_text(enum hv_vf_why why);

/* The pair behind one routed netdev. `upper` is where addresses and routes live (netvsc's eth0), `lower` the VF's own netdev: its
 * slave (IFLA_MASTER == upper), else a netdev with the same MAC and no address of its own (lab without a master link), else
 * `upper` itself (bare NIC: no failover partner). */
struct hv_vf_pair {
	int upper, lower;            /* ifindex */
	char upper_name[16], lower_name[16];
	uint8_t mac[6];
	uint32_t mtu;
	bool running;                /* lower is UP and RUNNING (IFF_UP|IFF_RUNNING) */
	bool bare;                   /* lower == upper */
	char ibname[64];
	int ibindex;                 /* RDMA nldev index, -1 unknown */
};
/* *pair is filled as far as known also on failure (NOT_RUNNING: wholly; NO_DEVICE: without ibname). May load the library. */
enum hv_vf_why hv_vf_discover(int upper_ifindex, struct hv_vf_pair *pair);

struct hv_vf_limits { uint32_t mem_bytes; /* ceiling of registered memory */ uint32_t rx_slots, tx_slots; bool hugepages; };

struct hv_vf; /* one opened device with one ring: context, PD, MR, QP, RX and TX CQ on one completion channel */

/* Opens, makes the trial QP and trial flow, posts all receive buffers. On failure returns the reason, *errp = errno, nothing left behind.
 * Where less may be locked than lim->mem_bytes, it makes do with a half, a quarter..., down to 2 MiB, before HV_VF_MEMLOCK. */
enum hv_vf_why hv_vf_open(struct hv_vf **out, const struct hv_vf_pair *pair, const struct hv_vf_limits *lim, int *errp);
/* dead: the device is gone (skip what would only return EIO). Chunks and buffers must no longer be used by anyone. */
void hv_vf_close(struct hv_vf *vf, bool dead);
const struct hv_vf_pair *hv_vf_pair(const struct hv_vf *vf);

/* Pools: every receive buffer that isn't posted, and every send chunk, start in env. Call once after open. */
void hv_vf_env_init(struct hv_vf *vf, struct hv_env *env);

struct hv_vf_cqe { struct hv_buf *buf; bool csum_ok; };
/* Up to max received frames: buf->data = frame, buf->len = octets. Returns the number; re-arms nothing. */
unsigned hv_vf_poll_rx(struct hv_vf *vf, struct hv_vf_cqe *out, unsigned max, uint64_t now_ns);
/* Post buffers from env->free_rx until the RQ is full. A handful that is missing waits for the next call: posts come in batches. */
void hv_vf_refill(struct hv_vf *vf, struct hv_env *env);
/* Receive buffers that the device may write to. */
uint32_t hv_vf_rx_posted(const struct hv_vf *vf);
/* WQEs that may be posted now. */
unsigned hv_vf_tx_room(const struct hv_vf *vf);
/* Post one frame or TSO burst; advances env->sq_next. 0, or -errno (nothing posted). Completion is signalled for each.
 * -EAGAIN: no room. -EIO: the QP is in error. -EMSGSIZE, -EINVAL: inline_ok with more than an MTU of payload, or with mss; more than tso_max. */
int hv_vf_tx(struct hv_vf *vf, struct hv_env *env, const struct hv_tx *tx, uint64_t now_ns);
/* Reap send completions: advances env->sq_done. Returns completions found. */
unsigned hv_vf_poll_tx(struct hv_vf *vf, struct hv_env *env);
/* For the watchdog: CLOCK_MONOTONIC of the oldest uncompleted post, 0 = none outstanding, 1 = a completion reported an error: the QP is dead. */
uint64_t hv_vf_tx_oldest(const struct hv_vf *vf);
uint32_t hv_vf_tso_max(const struct hv_vf *vf);

/* Completion channel: fd to poll; arm asks for one event; ack consumes pending events (never blocks). What came before arm may raise none: poll once
 * more after it. Send completions raise events only while less than a quarter of the SQ is free. */
int hv_vf_channel_fd(const struct hv_vf *vf);
int hv_vf_arm(struct hv_vf *vf);
void hv_vf_channel_ack(struct hv_vf *vf);

/* Async events: fd to poll; next returns false when none is pending. fatal: DEVICE_FATAL; port_down: PORT_ERR. */
struct hv_vf_async { bool fatal, port_down, port_up, qp_fatal; const char *text; };
int hv_vf_async_fd(const struct hv_vf *vf);
bool hv_vf_async_next(struct hv_vf *vf, struct hv_vf_async *ev);

/* Steer one flow to the ring. TCP: 5-tuple. UDP: 5-tuple when raddr/rport are set, else laddr (may be any = all zero) + lport. */
struct hv_vf_flow;
enum hv_vf_why hv_vf_flow_add(struct hv_vf *vf, const struct hv_tuple *t, struct hv_vf_flow **out, int *errp); /* any thread, no lock */
void hv_vf_flow_keep(struct hv_vf *vf, struct hv_vf_flow *f); /* ring lock held, as for del: from now on hv_vf_close() would destroy it */
void hv_vf_flow_del(struct hv_vf *vf, struct hv_vf_flow *f);
/* Instead of del where the provider must not be called, because it frees memory and malloc() may have been interrupted. Ring lock held. */
void hv_vf_flow_later(struct hv_vf *vf, struct hv_vf_flow *f);
void hv_vf_flow_sweep(struct hv_vf *vf);

struct hv_vf_counters { uint64_t rx_frames, rx_octets, tx_posts, tx_octets, tx_tso, cqe_errors, rx_no_buf, arms, wakes; };
const struct hv_vf_counters *hv_vf_counters(const struct hv_vf *vf);

/* fork: forget everything in the child without touching the device; closes the child's copies of the descriptors and frees vf. */
void hv_vf_child_forget(struct hv_vf *vf);

#endif
