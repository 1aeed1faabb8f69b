/*
 * opt.c - from a layer 4 header to struct hv_seg.
 *
 * hv_tcp_parse() reads nothing outside l4[0..l4_len) and takes at most 40 steps: an option of length 0 or 1, or one that runs over
 * the header, ends the parse (a loop there is the classic bug of userspace stacks).
 */
#include "stack/opt.h"
#include "stack/tcp.h"

static void parse_options(const uint8_t *p, uint32_t n, struct hv_seg *seg)
{
	uint32_t i = 0;

	while (i < n) {
		uint32_t kind = p[i], len;

		if (kind == HV_OPT_EOL)
			return;
		if (kind == HV_OPT_NOP) {
			i++;
			continue;
		}
		if (n - i < 2)
			return;
		len = p[i + 1];
		if (len < 2 || len > n - i)
			return;
		if (kind == HV_OPT_TS && len == 10 && !seg->has_ts) {
			seg->has_ts = true;
			seg->tsval = hv_get32(p + i + 2);
			seg->tsecr = hv_get32(p + i + 6);
		} else if (kind == HV_OPT_SACK && len >= 10 && (len - 2) % 8 == 0 && seg->nsack == 0) {
			uint8_t nb = (uint8_t)((len - 2) / 8);

			if (nb > 4)
				nb = 4; /* cannot be: 40 octets of options hold four */
			for (uint32_t b = 0; b < nb; b++) {
				seg->sack[b][0] = hv_get32(p + i + 2 + 8 * b);
				seg->sack[b][1] = hv_get32(p + i + 6 + 8 * b);
			}
			seg->nsack = nb;
		}
		i += len;
	}
}

bool hv_tcp_parse(const uint8_t *l4, uint32_t l4_len, struct hv_seg *seg)
{
	uint32_t doff;

	if (l4_len < HV_TCP_LEN)
		return false;
	doff = (uint32_t)(l4[HV_TCP_OFF] >> 4) * 4u;
	if (doff < HV_TCP_LEN || doff > l4_len)
		return false;
	seg->buf = NULL;
	seg->data = l4 + doff;
	seg->len = l4_len - doff;
	seg->seq = hv_get32(l4 + HV_TCP_SEQ);
	seg->ack = hv_get32(l4 + HV_TCP_ACKNO);
	seg->wnd = hv_get16(l4 + HV_TCP_WND);
	seg->flags = l4[HV_TCP_FLAGS];
	seg->has_ts = false;
	seg->ce = false;
	seg->nsack = 0;
	seg->tsval = seg->tsecr = 0;
	if (doff == HV_TCP_LEN + HV_TS_OPT_LEN && hv_get32(l4 + HV_TCP_OPT) == HV_TS_ALIGNED) {
		seg->has_ts = true;
		seg->tsval = hv_get32(l4 + HV_TCP_OPT + 4);
		seg->tsecr = hv_get32(l4 + HV_TCP_OPT + 8);
	} else if (doff > HV_TCP_LEN) {
		parse_options(l4 + HV_TCP_OPT, doff - HV_TCP_LEN, seg);
	}
	return true;
}
