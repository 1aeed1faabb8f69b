/*
 * route.h - the kernel's answer to "how would you send this?": device, next hop, its MAC. Raw rtnetlink requests, no state, no cache.
 */
#ifndef HV_ROUTE_H
#define HV_ROUTE_H

#include "stack/image.h"

struct hv_route {
	int ifindex;
	uint32_t mtu;    /* of the path, as far as the kernel knows it */
	uint8_t src_mac[6], dst_mac[6];
	bool have_mac;
	bool local;      /* loopback/local table: never accelerate */
	bool mtu_locked; /* packets go without DF: fixed by the operator, or too narrow for anything else */
};
/* 0, or -errno (-ENETUNREACH, -EHOSTUNREACH ...). have_mac is false when the neighbour isn't resolved (the caller retries later). mark 0 = none. */
int hv_route_get(const struct hv_tuple *t, uint32_t mark, int bound_ifindex, struct hv_route *r);
/* Private to src/failover: fork, and the descriptor in use (-1 none). */
void hv_route_child(void);
int hv_route_fd(void);

#endif
