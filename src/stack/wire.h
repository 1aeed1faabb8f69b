/*
 * wire.h - fields of Ethernet, VLAN, IPv4, IPv6, TCP and UDP headers by offset.
 *
 * Loads and stores go through memcpy: no packed structs, no aliasing, any alignment. Anyone in src/stack; no state, no lock.
 */
#ifndef HV_WIRE_H
#define HV_WIRE_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "little-endian machines only"
#endif

static inline uint16_t hv_swap16(uint16_t v)
{
	return __builtin_bswap16(v);
}
static inline uint32_t hv_swap32(uint32_t v)
{
	return __builtin_bswap32(v);
}
static inline uint16_t hv_get16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, 2);
	return hv_swap16(v);
}
static inline uint32_t hv_get32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return hv_swap32(v);
}
static inline void hv_put16(uint8_t *p, uint32_t v)
{
	uint16_t n = hv_swap16((uint16_t)v);
	memcpy(p, &n, 2);
}
static inline void hv_put32(uint8_t *p, uint32_t v)
{
	v = hv_swap32(v);
	memcpy(p, &v, 4);
}

/* Ethernet */
enum { HV_ETH_LEN = 14, HV_ETH_SRC = 6, HV_ETH_TYPE = 12, HV_VLAN_LEN = 4 };
enum { HV_ETHERTYPE_IP4 = 0x0800, HV_ETHERTYPE_IP6 = 0x86dd, HV_ETHERTYPE_VLAN = 0x8100, HV_ETHERTYPE_QINQ = 0x88a8 };

/* IPv4, RFC 791 */
enum { HV_IP4_LEN = 20, HV_IP4_TOS = 1, HV_IP4_TOTAL = 2, HV_IP4_ID = 4, HV_IP4_FRAG = 6, HV_IP4_TTL = 8, HV_IP4_PROTO = 9,
	HV_IP4_CSUM = 10, HV_IP4_SRC = 12, HV_IP4_DST = 16 };
#define HV_IP4_DF 0x4000u
#define HV_IP4_MF_OFF 0x3fffu

/* IPv6, RFC 8200 */
enum { HV_IP6_LEN = 40, HV_IP6_PAYLOAD = 4, HV_IP6_NEXT = 6, HV_IP6_HOPS = 7, HV_IP6_SRC = 8, HV_IP6_DST = 24 };

enum { HV_PROTO_TCP = 6, HV_PROTO_UDP = 17 };

/* TCP, RFC 9293 3.1 */
enum { HV_TCP_LEN = 20, HV_TCP_SPORT = 0, HV_TCP_DPORT = 2, HV_TCP_SEQ = 4, HV_TCP_ACKNO = 8, HV_TCP_OFF = 12, HV_TCP_FLAGS = 13,
	HV_TCP_WND = 14, HV_TCP_CSUM = 16, HV_TCP_URGP = 18, HV_TCP_OPT = 20 };
enum { HV_ECT0 = 2, HV_CE = 3 }; /* the ECN field, RFC 3168 section 5 */
enum { HV_FIN = 1, HV_SYN = 2, HV_RST = 4, HV_PSH = 8, HV_ACK = 16, HV_URG = 32, HV_ECE = 64, HV_CWR = 128 };
enum { HV_OPT_EOL = 0, HV_OPT_NOP = 1, HV_OPT_SACK = 5, HV_OPT_TS = 8 };
#define HV_TS_OPT_LEN 12u             /* NOP NOP TS */
#define HV_TS_ALIGNED 0x0101080au     /* the same, as one word in network order */

/* UDP, RFC 768 */
enum { HV_UDP_LEN = 8, HV_UDP_SPORT = 0, HV_UDP_DPORT = 2, HV_UDP_ULEN = 4, HV_UDP_CSUM = 6 };

#endif
