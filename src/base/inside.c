/*
 * inside.c - the counter of inside.h.
 */
#include "base/inside.h"

__thread int hv_inside_depth __attribute__((tls_model("initial-exec")));
