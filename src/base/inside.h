/*
 * inside.h - "this thread is inside the library": foreign code that we call (libnl, verbs providers) uses libc's names, which are interposed.
 *
 * While the depth is not zero, the hooks of src/preload pass straight to libc. Per thread, no lock; enter and leave come in pairs, also around
 * calls that may call back. Initial-exec TLS: no allocation at first use, readable in signal handlers.
 */
#ifndef HV_INSIDE_H
#define HV_INSIDE_H

extern __thread int hv_inside_depth __attribute__((tls_model("initial-exec")));

static inline void hv_inside_enter(void) { hv_inside_depth++; }
static inline void hv_inside_leave(void) { hv_inside_depth--; }

#endif
