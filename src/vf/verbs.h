/*
 * verbs.h - libibverbs, loaded late (verbs.c): the table of its functions that we call, private to src/vf.
 *
 * Data calls (poll, post, notify, flows, device_ex) are static inlines of <infiniband/verbs.h> over the context's own operations or go through
 * verbs_get_ctx_op() and need no symbol; everything else goes through hv_verbs. Some inlines and macros of that header fall back to exported
 * functions (ibv_reg_mr, ibv_query_port, ibv_query_device_ex...): don't use these here, nothing may need libibverbs at link time.
 */
#ifndef HV_VERBS_H
#define HV_VERBS_H

#include <errno.h>
#include <infiniband/verbs.h>
#include "base/inside.h"
#include "vf/vf.h"

#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_get_device_list

/* HV_SYM(needed, version node, result, name, arguments) */
#define HV_VERBS_SYMBOLS \
	HV_SYM(1, "IBVERBS_1.1", struct ibv_device **, ibv_get_device_list, (int *n)) \
	HV_SYM(1, "IBVERBS_1.1", void, ibv_free_device_list, (struct ibv_device **list)) \
	HV_SYM(1, "IBVERBS_1.1", const char *, ibv_get_device_name, (struct ibv_device *dev)) \
	HV_SYM(1, "IBVERBS_1.1", struct ibv_context *, ibv_open_device, (struct ibv_device *dev)) \
	HV_SYM(1, "IBVERBS_1.1", int, ibv_close_device, (struct ibv_context *ctx)) \
	HV_SYM(1, "IBVERBS_1.1", int, ibv_query_device, (struct ibv_context *ctx, struct ibv_device_attr *attr)) \
	HV_SYM(1, "IBVERBS_1.1", int, ibv_query_port, (struct ibv_context *ctx, uint8_t port, struct _compat_ibv_port_attr *attr)) \
	HV_SYM(1, "IBVERBS_1.1", struct ibv_pd *, ibv_alloc_pd, (struct ibv_context *ctx)) \
	HV_SYM(1, "IBVERBS_1.1", int, ibv_dealloc_pd, (struct ibv_pd *pd)) \
	HV_SYM(1, "IBVERBS_1.1", struct ibv_mr *, ibv_reg_mr, (struct ibv_pd *pd, void *addr, size_t len, int access)) \
	HV_SYM(1, "IBVERBS_1.1", int, ibv_dereg_mr, (struct ibv_mr *mr)) \
	HV_SYM(1, "IBVERBS_1.0", struct ibv_comp_channel *, ibv_create_comp_channel, (struct ibv_context *ctx)) \
	HV_SYM(1, "IBVERBS_1.0", int, ibv_destroy_comp_channel, (struct ibv_comp_channel *ch)) \
	HV_SYM(1, "IBVERBS_1.1", struct ibv_cq *, ibv_create_cq, (struct ibv_context *ctx, int cqe, void *arg, struct ibv_comp_channel *ch, int vec)) \
	HV_SYM(1, "IBVERBS_1.1", int, ibv_destroy_cq, (struct ibv_cq *cq)) \
	HV_SYM(1, "IBVERBS_1.1", int, ibv_get_cq_event, (struct ibv_comp_channel *ch, struct ibv_cq **cq, void **arg)) \
	HV_SYM(1, "IBVERBS_1.1", void, ibv_ack_cq_events, (struct ibv_cq *cq, unsigned int n)) \
	HV_SYM(1, "IBVERBS_1.1", struct ibv_qp *, ibv_create_qp, (struct ibv_pd *pd, struct ibv_qp_init_attr *attr)) \
	HV_SYM(1, "IBVERBS_1.1", int, ibv_modify_qp, (struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)) \
	HV_SYM(1, "IBVERBS_1.1", int, ibv_destroy_qp, (struct ibv_qp *qp)) \
	HV_SYM(1, "IBVERBS_1.1", int, ibv_get_async_event, (struct ibv_context *ctx, struct ibv_async_event *ev)) \
	HV_SYM(1, "IBVERBS_1.1", void, ibv_ack_async_event, (struct ibv_async_event *ev)) \
	HV_SYM(0, "IBVERBS_1.1", int, ibv_fork_init, (void)) \
	HV_SYM(0, "IBVERBS_1.13", enum ibv_fork_status, ibv_is_fork_initialized, (void)) \
	HV_SYM(0, "IBVERBS_1.9", int, ibv_get_device_index, (struct ibv_device *dev)) \
	HV_SYM(0, "IBVERBS_1.11", ssize_t, _ibv_query_gid_table, \
		(struct ibv_context *ctx, struct ibv_gid_entry *e, size_t n, uint32_t flags, size_t size))

struct hv_verbs {
#define HV_SYM(needed, ver, ret, name, args) ret(*name) args;
	HV_VERBS_SYMBOLS
#undef HV_SYM
};
extern struct hv_verbs hv_verbs; /* valid after hv_verbs_load() returned HV_VF_OK */

/* Idempotent. HV_VF_NO_LIBRARY, or HV_VF_OTHER with EAGAIN: another thread is loading it right now. */
enum hv_vf_why hv_verbs_load(int *errp);
/* ibv_get_device_list with the process's first call made under RDMAV_ALLOW_DISASSOC_DESTROY. NULL: *errp is set. */
struct ibv_device **hv_verbs_devices(int *n, int *errp);
int hv_verbs_query_port(struct ibv_context *ctx, struct ibv_port_attr *attr);         /* 0 or errno */
int hv_verbs_query_device(struct ibv_context *ctx, struct ibv_device_attr_ex *attr);  /* 0 or errno */

/* The reason behind an errno of a control call; step is what to blame when the number says nothing. */
enum hv_vf_why hv_verbs_why(int err, enum hv_vf_why step);

#endif
