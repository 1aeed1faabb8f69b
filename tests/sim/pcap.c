/*
 * pcap.c - see pcap.h. Classic format, microseconds, Ethernet.
 */
#include "pcap.h"

#include <stdio.h>
#include <stdlib.h>

struct pcap { FILE *f; };

struct pcap *pcap_open(const char *path)
{
	static const uint32_t head[6] = { 0xa1b2c3d4u, 2u | 4u << 16, 0, 0, 65600, 1 };
	struct pcap *p = malloc(sizeof *p);

	if (p == NULL)
		return NULL;
	p->f = fopen(path, "wb");
	if (p->f == NULL || fwrite(head, sizeof head, 1, p->f) != 1) {
		if (p->f != NULL)
			fclose(p->f);
		free(p);
		return NULL;
	}
	return p;
}

void pcap_write(struct pcap *p, uint64_t us, const uint8_t *frame, uint32_t len)
{
	uint32_t head[4] = { (uint32_t)(us / 1000000), (uint32_t)(us % 1000000), len, len };

	if (fwrite(head, sizeof head, 1, p->f) != 1 || fwrite(frame, len, 1, p->f) != 1)
		fprintf(stderr, "pcap: short write\n");
}

void pcap_close(struct pcap *p)
{
	if (fclose(p->f) != 0)
		fprintf(stderr, "pcap: close failed\n");
	free(p);
}
