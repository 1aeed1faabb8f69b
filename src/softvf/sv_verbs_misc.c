/*
 * sv_verbs_misc.c - texts and small functions without state.
 */
#include <errno.h>
#include "softvf/sv_verbs.h"

#define TEXT(table, i) ((unsigned)(i) < sizeof(table) / sizeof(table)[0] && (table)[i] != NULL ? (table)[i] : "unknown")

SV_EXPORT const char *ibv_wc_status_str(enum ibv_wc_status s)
{
	static const char *const t[] = {
		[IBV_WC_SUCCESS] = "success", [IBV_WC_LOC_LEN_ERR] = "local length error", [IBV_WC_LOC_QP_OP_ERR] = "local QP operation error",
		[IBV_WC_LOC_EEC_OP_ERR] = "local EE context operation error", [IBV_WC_LOC_PROT_ERR] = "local protection error",
		[IBV_WC_WR_FLUSH_ERR] = "Work Request Flushed Error", [IBV_WC_MW_BIND_ERR] = "memory management operation error",
		[IBV_WC_BAD_RESP_ERR] = "bad response error", [IBV_WC_LOC_ACCESS_ERR] = "local access error",
		[IBV_WC_REM_INV_REQ_ERR] = "remote invalid request error", [IBV_WC_REM_ACCESS_ERR] = "remote access error",
		[IBV_WC_REM_OP_ERR] = "remote operation error", [IBV_WC_RETRY_EXC_ERR] = "transport retry counter exceeded",
		[IBV_WC_RNR_RETRY_EXC_ERR] = "RNR retry counter exceeded", [IBV_WC_FATAL_ERR] = "fatal error", [IBV_WC_GENERAL_ERR] = "general error",
	};

	return TEXT(t, s);
}

SV_EXPORT const char *ibv_event_type_str(enum ibv_event_type e)
{
	static const char *const t[] = {
		[IBV_EVENT_CQ_ERR] = "CQ error", [IBV_EVENT_QP_FATAL] = "local work queue catastrophic error",
		[IBV_EVENT_QP_REQ_ERR] = "invalid request local work queue error", [IBV_EVENT_QP_ACCESS_ERR] = "local access violation work queue error",
		[IBV_EVENT_COMM_EST] = "communication established", [IBV_EVENT_SQ_DRAINED] = "send queue drained", [IBV_EVENT_PATH_MIG] = "path migrated",
		[IBV_EVENT_PATH_MIG_ERR] = "path migration request error", [IBV_EVENT_DEVICE_FATAL] = "local catastrophic error",
		[IBV_EVENT_PORT_ACTIVE] = "port active", [IBV_EVENT_PORT_ERR] = "port error", [IBV_EVENT_LID_CHANGE] = "LID change",
		[IBV_EVENT_PKEY_CHANGE] = "P_Key change", [IBV_EVENT_SM_CHANGE] = "SM change", [IBV_EVENT_GID_CHANGE] = "GID table change",
	};

	return TEXT(t, e);
}

SV_EXPORT const char *ibv_port_state_str(enum ibv_port_state s)
{
	static const char *const t[] = {
		[IBV_PORT_NOP] = "no state change (NOP)", [IBV_PORT_DOWN] = "down", [IBV_PORT_INIT] = "init", [IBV_PORT_ARMED] = "armed",
		[IBV_PORT_ACTIVE] = "active", [IBV_PORT_ACTIVE_DEFER] = "active defer",
	};

	return TEXT(t, s);
}

SV_EXPORT const char *ibv_node_type_str(enum ibv_node_type n) { return n == IBV_NODE_CA ? "InfiniBand channel adapter" : "unknown"; }

/* Nothing that a fork could break: registered memory is ordinary, our own is not inherited. */
SV_EXPORT int ibv_fork_init(void) { return 0; }
SV_EXPORT enum ibv_fork_status ibv_is_fork_initialized(void) { return IBV_FORK_UNNEEDED; }

/* Rates: multiples of 2.5 Gbit/s (IBTA) and Mbit/s. */
static const struct {
	enum ibv_rate rate;
	int mult, mbps;
} rates[] = {
	{ IBV_RATE_2_5_GBPS, 1, 2500 }, { IBV_RATE_5_GBPS, 2, 5000 }, { IBV_RATE_10_GBPS, 4, 10000 },
	{ IBV_RATE_20_GBPS, 8, 20000 }, { IBV_RATE_30_GBPS, 12, 30000 }, { IBV_RATE_40_GBPS, 16, 40000 },
	{ IBV_RATE_60_GBPS, 24, 60000 }, { IBV_RATE_80_GBPS, 32, 80000 }, { IBV_RATE_120_GBPS, 48, 120000 },
	{ IBV_RATE_28_GBPS, 11, 28125 }, { IBV_RATE_50_GBPS, 20, 53125 }, { IBV_RATE_400_GBPS, 160, 425000 },
	{ IBV_RATE_600_GBPS, 240, 637500 }, { IBV_RATE_14_GBPS, 5, 14062 }, { IBV_RATE_56_GBPS, 22, 56250 },
	{ IBV_RATE_112_GBPS, 45, 112500 }, { IBV_RATE_168_GBPS, 67, 168750 }, { IBV_RATE_25_GBPS, 10, 25781 },
	{ IBV_RATE_100_GBPS, 40, 103125 }, { IBV_RATE_200_GBPS, 80, 206250 }, { IBV_RATE_300_GBPS, 120, 309375 },
};
#define N_RATES (sizeof rates / sizeof rates[0])

SV_EXPORT int ibv_rate_to_mult(enum ibv_rate r)
{
	for (unsigned i = 0; i < N_RATES; i++)
		if (rates[i].rate == r)
			return rates[i].mult;
	return -1;
}

SV_EXPORT int ibv_rate_to_mbps(enum ibv_rate r)
{
	for (unsigned i = 0; i < N_RATES; i++)
		if (rates[i].rate == r)
			return rates[i].mbps;
	return -1;
}

SV_EXPORT enum ibv_rate mult_to_ibv_rate(int m)
{
	for (unsigned i = 0; i < N_RATES; i++)
		if (rates[i].mult == m)
			return rates[i].rate;
	return IBV_RATE_MAX;
}

SV_EXPORT enum ibv_rate mbps_to_ibv_rate(int m)
{
	for (unsigned i = 0; i < N_RATES; i++)
		if (rates[i].mbps == m)
			return rates[i].rate;
	return IBV_RATE_MAX;
}
