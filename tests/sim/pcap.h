/*
 * pcap.h - writes captures that tcpdump and wireshark read.
 */
#ifndef HV_SIM_PCAP_H
#define HV_SIM_PCAP_H

#include <stdint.h>

struct pcap;

struct pcap *pcap_open(const char *path);
void pcap_write(struct pcap *p, uint64_t us, const uint8_t *frame, uint32_t len);
void pcap_close(struct pcap *p);

#endif
