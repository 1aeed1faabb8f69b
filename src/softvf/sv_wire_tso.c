/*
 * sv_wire_tso.c - segmentation offload: a burst goes out in one call through an AF_PACKET socket with PACKET_VNET_HDR.
 *
 * The AF_XDP socket has no segmentation; the packet socket's virtio header does what a NIC's TSO engine does, past the qdisc as
 * a NIC's queue would. That works only while the netdev itself takes super-frames: past the qdisc the kernel drops what it would
 * have to segment in software (a veth whose other end runs XDP). Then a second socket without the bypass takes over.
 * Called under tx_lock when the TX ring is empty, so that frames leave in the order they were posted.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include "softvf/sv_csum.h"
#include "softvf/sv_wire.h"

#define REPROBE 4096u /* bursts after which the fast way is tried again */

static int open_one(const struct sv_wire *w, int bypass)
{
	struct sockaddr_ll sa = { .sll_family = AF_PACKET, .sll_protocol = 0, .sll_ifindex = w->link.ifindex };
	int fd = hv_sys_high(hv_sys_socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)); /* protocol 0: receives nothing */
	int r;

	if (fd < 0)
		return fd;
	r = hv_sys_bind(fd, &sa, sizeof sa);
	if (r == 0)
		r = hv_sys_setint(fd, SOL_PACKET, PACKET_VNET_HDR, 1);
	if (r == 0)
		r = hv_sys_setint(fd, SOL_PACKET, PACKET_QDISC_BYPASS, bypass);
	if (r < 0) {
		hv_sys_close(fd);
		return r;
	}
	if (hv_sys_setint(fd, SOL_SOCKET, SO_SNDBUFFORCE, 16 << 20) < 0)
		(void)hv_sys_setint(fd, SOL_SOCKET, SO_SNDBUF, 4 << 20);
	return fd;
}

int sv_tso_open(struct sv_wire *w)
{
	w->pkt_fd = open_one(w, 1);
	if (w->pkt_fd < 0)
		return w->pkt_fd;
	w->pkt_slow_fd = open_one(w, 0);
	return w->pkt_slow_fd < 0 ? w->pkt_slow_fd : 0;
}

void sv_tso_close(struct sv_wire *w)
{
	if (w->pkt_fd >= 0)
		hv_sys_close(w->pkt_fd);
	if (w->pkt_slow_fd >= 0)
		hv_sys_close(w->pkt_slow_fd);
	w->pkt_fd = w->pkt_slow_fd = -1;
}

int sv_tso_send(struct sv_wire *w, struct iovec *iov, unsigned n, uint32_t hdr_len, uint32_t total, uint16_t mss)
{
	struct virtio_net_hdr vh;
	struct msghdr mh;
	struct sv_layout l;
	uint8_t *h = iov[1].iov_base;
	uint32_t l3;
	uint16_t c;
	long r;

	if (hdr_len < 14 + 20 + 20)
		return -EINVAL;
	l3 = h[12] == 0x81 && h[13] == 0x00 ? 18 : 14;
	if (h[l3] >> 4 == 4) {
		c = htons((uint16_t)(total - l3));
		memcpy(h + l3 + 2, &c, 2);
	} else {
		c = htons((uint16_t)(total - l3 - 40));
		memcpy(h + l3 + 4, &c, 2);
	}
	if (!sv_parse(h, hdr_len, total, &l) || l.l4 == 0 || l.proto != 6)
		return -EINVAL;
	if (l.ver == 4) {
		memset(h + l.l3 + 10, 0, 2);
		c = (uint16_t)~sv_fold(sv_sum_ip4(h + l.l3));
		memcpy(h + l.l3 + 10, &c, 2);
	}
	c = sv_fold(sv_pseudo(h, &l, total - l.l4)); /* whoever segments adds the rest */
	memcpy(h + l.l4 + l.csum_off, &c, 2);

	memset(&vh, 0, sizeof vh);
	vh.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	vh.csum_start = (uint16_t)l.l4;
	vh.csum_offset = (uint16_t)l.csum_off;
	vh.hdr_len = (uint16_t)hdr_len;
	if (total - hdr_len > mss) {
		vh.gso_type = l.ver == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
		vh.gso_size = mss;
	}
	iov[0].iov_base = &vh;
	iov[0].iov_len = sizeof vh;
	memset(&mh, 0, sizeof mh);
	mh.msg_iov = iov;
	mh.msg_iovlen = n;
	if (w->tso_slow > 0 && vh.gso_size != 0) {
		w->tso_slow--;
		r = hv_sys_sendmsg(w->pkt_slow_fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
	} else {
		r = hv_sys_sendmsg(w->pkt_fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (r == -ENOBUFS && vh.gso_size != 0) {
			r = hv_sys_sendmsg(w->pkt_slow_fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (r >= 0)
				w->tso_slow = REPROBE;
		}
	}
	if (r == -ENOBUFS) {
		struct sv_link lk;

		/* dropped: a full receiver is the network's loss, a link that goes down is ours */
		if (sv_wire_query(w, &lk) < 0 || (lk.flags & (IFF_UP | IFF_RUNNING)) != (IFF_UP | IFF_RUNNING))
			return -ENETDOWN;
		return 0;
	}
	return r < 0 ? (int)r : 0;
}
