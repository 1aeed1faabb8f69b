/*
 * twin.h - fast = slow: what the shortcuts of the stack do is what the full path would have done.
 *
 * Both functions run the call twice from the same state, once each way, compare everything that can be seen later (TCB, pools, buffers,
 * segments that leave because of it), and put the state back as it was: the caller then makes the real call. Simulator and fuzzer.
 */
#ifndef HV_SIM_TWIN_H
#define HV_SIM_TWIN_H

#include "host.h"

struct twin_count { uint64_t input, send; };
extern struct twin_count twin_count; /* pairs compared so far */

/* NULL: equal, or prediction would not take this segment anyway. Otherwise what differs. */
const char *twin_input(struct host *h, const struct hv_seg *seg, uint64_t now);
/* The same for hv_tcp_send_fast() + commit against hv_tcp_write() + hv_tcp_output(). */
const char *twin_send(struct host *h, const uint8_t *data, uint32_t len, uint64_t now);

#endif
