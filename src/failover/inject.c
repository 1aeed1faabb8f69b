/*
 * inject.c - IP packets through raw sockets: to the local kernel as if the peer had sent them, and to the peer as if the kernel had.
 *
 * A packet for a local address that is sent on an IPPROTO_RAW socket comes in over lo with its route attached: no rp_filter, no address checks,
 * 15 us. Segments with octets carry no timestamp towards the kernel: Linux takes them without the PAWS test, which an old TSval would not pass.
 * No state but the sockets in hv_g; callable from any thread.
 */
#include <errno.h>
#include <linux/tcp.h>
#include <string.h>

#include "base/log.h"
#include "base/sys.h"
#include "failover/internal.h"

#define FIN 1u
#define PSH 8u
#define ACK 16u
#define SEG_MAX 9000u
#define MSS_FLOOR 88u
#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif

int hv_raw_open(int family)
{
	int fd = hv_sys_high(hv_sys_socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));

	if (fd >= 0)
		hv_sys_setint(fd, SOL_SOCKET, SO_SNDBUFFORCE, 4 << 20);
	return fd;
}

static int raw_send(const struct hv_tuple *t, bool to_local, const void *l3, size_t len, int ifindex, int mark)
{
	union { struct cmsghdr h; uint8_t b[128]; } ctl;
	union hv_sa sa;
	struct iovec iov = { (void *)l3, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fd = hv_g.raw_fd[t->family == 6];
	size_t off = 0;
	ssize_t r;

	if (fd < 0)
		return -EAFNOSUPPORT;
	m.msg_name = &sa;
	m.msg_namelen = hv_sa_from(&sa, t, t->family == 6 ? AF_INET6 : AF_INET, to_local);
	/* a raw socket takes the port for a protocol */
	if (t->family == 6)
		sa.in6.sin6_port = 0;
	else
		sa.in.sin_port = 0;
	memset(&ctl, 0, sizeof ctl);
	if (ifindex != 0) {
		struct cmsghdr *c = &ctl.h;
		if (t->family == 6) {
			struct in6_pktinfo pi = { .ipi6_ifindex = (unsigned)ifindex };
			c->cmsg_level = IPPROTO_IPV6;
			c->cmsg_type = IPV6_PKTINFO;
			c->cmsg_len = CMSG_LEN(sizeof pi);
			memcpy(CMSG_DATA(c), &pi, sizeof pi);
			off += CMSG_SPACE(sizeof pi);
		} else {
			struct in_pktinfo pi = { .ipi_ifindex = ifindex };
			c->cmsg_level = IPPROTO_IP;
			c->cmsg_type = IP_PKTINFO;
			c->cmsg_len = CMSG_LEN(sizeof pi);
			memcpy(CMSG_DATA(c), &pi, sizeof pi);
			off += CMSG_SPACE(sizeof pi);
		}
	}
	if (mark > 0) {
		struct cmsghdr *c = (struct cmsghdr *)(void *)(ctl.b + off);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SO_MARK;
		c->cmsg_len = CMSG_LEN(sizeof mark);
		memcpy(CMSG_DATA(c), &mark, sizeof mark);
		off += CMSG_SPACE(sizeof mark);
	}
	if (off != 0) {
		m.msg_control = &ctl;
		m.msg_controllen = off;
	}
	int tries = 3;
	do
		r = hv_sys_sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while ((r == -EINTR || r == -ENOBUFS || r == -EAGAIN) && --tries != 0);
	return r < 0 ? (int)r : 0;
}

int hv_inject(const struct hv_tuple *t, const void *l3, size_t len)
{
	int r = raw_send(t, true, l3, len, 0, 0);

	if (r == 0)
		HV_MOVED(injected, 1);
	return r;
}

static uint32_t sum(uint32_t s, const uint8_t *p, uint32_t n)
{
	uint64_t a = s;

	for (; n > 1; n -= 2, p += 2)
		a += (uint32_t)p[0] << 8 | p[1];
	if (n != 0)
		a += (uint32_t)p[0] << 8;
	while (a >> 16 != 0)
		a = (a & 0xffff) + (a >> 16);
	return (uint32_t)a;
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

struct segment {
	const struct hv_tuple *t;
	bool from_local;
	uint8_t flags, ttl, tos;
	uint32_t seq, ack, wnd;
	bool has_ts;
	uint32_t tsval, tsecr;
	const uint8_t *data;
	uint32_t len;
};

/* An IP packet with one TCP segment; b holds 40 + 32 octets more than the data. Returns its length. */
static uint32_t build(uint8_t *b, const struct segment *s)
{
	const struct hv_tuple *t = s->t;
	const uint8_t *src = s->from_local ? t->laddr : t->raddr, *dst = s->from_local ? t->raddr : t->laddr;
	uint32_t al = t->family == 6 ? 16 : 4, ip = t->family == 6 ? 40 : 20, th = s->has_ts ? 32 : 20, l4 = th + s->len;
	uint8_t *p = b + ip;

	memset(b, 0, ip + th);
	if (t->family == 6) {
		put32(b, 6u << 28 | (uint32_t)s->tos << 20);
		put16(b + 4, l4);
		b[6] = IPPROTO_TCP;
		b[7] = s->ttl;
		memcpy(b + 8, src, 16);
		memcpy(b + 24, dst, 16);
	} else {
		b[0] = 0x45;
		b[1] = s->tos;
		put16(b + 2, ip + l4);
		b[6] = 0x40; /* DF; identification and checksum are the kernel's */
		b[8] = s->ttl;
		b[9] = IPPROTO_TCP;
		memcpy(b + 12, src, 4);
		memcpy(b + 16, dst, 4);
	}
	memcpy(p, s->from_local ? &t->lport : &t->rport, 2);
	memcpy(p + 2, s->from_local ? &t->rport : &t->lport, 2);
	put32(p + 4, s->seq);
	put32(p + 8, s->ack);
	p[12] = (uint8_t)(th / 4 << 4);
	p[13] = s->flags;
	put16(p + 14, s->wnd > 65535 ? 65535 : s->wnd);
	if (s->has_ts) {
		put32(p + 20, 0x0101080au);
		put32(p + 24, s->tsval);
		put32(p + 28, s->tsecr);
	}
	if (s->len != 0)
		memcpy(p + th, s->data, s->len);
	uint32_t c = sum(sum(IPPROTO_TCP + l4, src, al), dst, al);
	put16(p + 16, ~sum(c, p, l4) & 0xffff);
	return ip + l4;
}

int hv_inject_tcp(const struct hv_tcp_image *img, uint32_t seq, uint32_t ack, uint8_t flags, const void *data, uint32_t len)
{
	uint8_t b[SEG_MAX + 80];
	uint32_t step = img->mss_clamp < 536 ? 536 : img->mss_clamp > SEG_MAX ? SEG_MAX : img->mss_clamp;
	struct segment s = { .t = &img->tuple, .ttl = 64, .ack = ack, .wnd = img->snd_wnd >> (img->snd_wscale & 15) };

	do {
		bool last = len <= step;
		s.seq = seq;
		s.data = data;
		s.len = last ? len : step;
		s.flags = last ? flags : flags & (uint8_t)~(FIN | PSH);
		int r = raw_send(s.t, true, b, build(b, &s), 0, 0);
		if (r < 0)
			return r;
		HV_MOVED(injected, 1);
		if (last)
			break;
		seq += s.len;
		data = (const uint8_t *)data + s.len;
		len -= s.len;
	} while (len != 0);
	return 0;
}

bool hv_inject_rtt(const struct hv_park *pk, const struct hv_tcp_image *img)
{
	uint8_t b[80];
	uint32_t now;
	struct tcp_info ti;
	socklen_t l = sizeof now;

	/* SRTT and nothing more: a timeout longer than three times that, because it varies, can't be expressed. A longer sample instead would grow with
	 * each move, for the stack's variance comes from such samples. */
	if (hv_sys_getsockopt(pk->fd, IPPROTO_TCP, TCP_TIMESTAMP, &now, &l) < 0)
		return false;
	struct segment s = { .t = &img->tuple, .ttl = 64, .flags = ACK, .seq = img->rcv_nxt, .ack = img->snd_una, .wnd = img->snd_wnd >> (img->snd_wscale & 15),
		.has_ts = true, .tsval = img->ts_recent, .tsecr = now - (img->srtt_us + 500) / 1000 };
	memset(&ti, 0, sizeof ti);
	l = sizeof ti;
	return raw_send(s.t, true, b, build(b, &s), 0, HV_RTT_MARK) == 0 && hv_sys_getsockopt(pk->fd, IPPROTO_TCP, TCP_INFO, &ti, &l) == 0 && ti.tcpi_rtt != 0;
}

#define RESEND_HEAD 32u

void hv_resend(const struct hv_park *pk, const struct hv_tcp_image *img, uint32_t tsval)
{
	uint8_t b[SEG_MAX + 80];
	uint32_t sent = img->snd_nxt - img->snd_una, step = img->snd_mss < MSS_FLOOR ? MSS_FLOOR : img->snd_mss > SEG_MAX ? SEG_MAX : img->snd_mss;
	int mark = hv_sys_getint(pk->fd, SOL_SOCKET, SO_MARK), dev = hv_sys_getint(pk->fd, SOL_SOCKET, SO_BINDTOIFINDEX);
	struct segment s = { .t = &img->tuple, .from_local = true, .ttl = img->ttl != 0 ? img->ttl : 64, .tos = img->tos & 0xfc, .ack = img->rcv_nxt,
		.has_ts = (img->opts & HV_TCPO_TS) != 0, .tsval = tsval, .tsecr = img->ts_recent_valid ? img->ts_recent : 0, .flags = ACK };
	uint32_t edge = img->rcv_wup + img->rcv_wnd;

	s.wnd = hv_seq_lt(img->rcv_nxt, edge) ? (edge - img->rcv_nxt) >> (img->rcv_wscale & 15) : 0;
	for (uint32_t off = 0, n = 0; off < sent; off += s.len, n++) {
		/* A megabyte in flight would keep everybody waiting for milliseconds. The head fills the hole, the last segment's SACK tells the kernel
		 * what is missing between them, and its own recovery sends that. */
		if (n == RESEND_HEAD && sent - off > step)
			off = sent - step;
		s.seq = img->snd_una + off;
		s.data = img->snd + off;
		s.len = sent - off < step ? sent - off : step;
		if (off + s.len == sent)
			s.flags |= PSH;
		int r = raw_send(s.t, false, b, build(b, &s), dev > 0 ? dev : 0, mark);
		if (r < 0) { /* the kernel's retransmission timer does it */
			hv_log(HV_LOG_DEBUG, "hand-off: resend stopped, error %d", -r);
			return;
		}
		HV_MOVED(resent, 1);
	}
}
