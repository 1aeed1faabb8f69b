/* frame_l3.h - private to src/stack: hv_frame_parse() from the IP header on. Fills everything but src_mac. */
#ifndef HV_FRAME_L3_H
#define HV_FRAME_L3_H

#include "stack/frame.h"

bool hv_l3_parse(uint8_t *l3, uint32_t room, struct hv_frame *f);

#endif
