/* opt.h - writing TCP options; the parser is hv_tcp_parse() in opt.c. Private to src/stack. */
#ifndef HV_OPT_H
#define HV_OPT_H

#include "stack/wire.h"

static inline uint8_t *hv_opt_put_ts(uint8_t *p, uint32_t tsval, uint32_t tsecr)
{
	hv_put32(p, HV_TS_ALIGNED);
	hv_put32(p + 4, tsval);
	hv_put32(p + 8, tsecr);
	return p + HV_TS_OPT_LEN;
}
/* n blocks: NOP NOP SACK len, then the edges (RFC 2018 section 3). */
static inline uint8_t *hv_opt_put_sack_head(uint8_t *p, unsigned n)
{
	p[0] = HV_OPT_NOP;
	p[1] = HV_OPT_NOP;
	p[2] = HV_OPT_SACK;
	p[3] = (uint8_t)(2u + 8u * n);
	return p + 4;
}
static inline uint8_t *hv_opt_put_block(uint8_t *p, uint32_t start, uint32_t end)
{
	hv_put32(p, start);
	hv_put32(p + 4, end);
	return p + 8;
}

#endif
