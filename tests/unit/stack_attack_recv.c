/*
 * stack_attack_recv.c - what a peer, or somebody in its name, can do to the receiving side: memory, work, order of octets, windows that
 * never open again, and headers that don't agree with themselves.
 */
#include "stack_attack.h"

/* More receive buffers than the rig has: the bound under test has to be the stack's own, not the pool's. */
static void big_pool(uint32_t n)
{
	struct host_conf c = r.h.conf;

	host_destroy(&r.h);
	memset(&r.h, 0, sizeof r.h);
	c.n_rx = n;
	c.ring = 128;
	host_init(&r.h, &c);
}

/* CVE-2018-5390: segments that leave a hole each. What is held, and so what has to be searched for each segment, is bounded even if the
 * receive buffer and the pool are large. */
static void segment_smack(void **state)
{
	(void)state;
	big_pool(3000);
	r.img.opts = HV_TCPO_SACK | HV_TCPO_WS;
	r.img.rcv_wscale = 10;
	r.img.rcvbuf = 16u << 20;
	r.img.rcv_wnd = 8u << 20;
	rig_start(&r);
	for (uint32_t i = 1; i < 4000; i++) {
		in(&r, .seq = 10 * i, .len = 1); /* upwards ... */
		rig_drop_out(&r);
	}
	assert_in_range(r.h.tcb->ooo_n, 256, HV_OOO_MAX);
	for (uint32_t i = 4000; i > 0; i--) {
		in(&r, .seq = 10 * i + 5, .len = 1); /* ... and into the middle */
		rig_drop_out(&r);
	}
	assert_in_range(r.h.tcb->ooo_n, 256, HV_OOO_MAX);
	assert_in_range(r.h.tcb->nrsack, 1, 4);
	for (uint32_t at = 0; at < 40010; at += 1000) { /* the stream itself goes on */
		in(&r, .seq = at, .len = 1000);
		rig_drop_out(&r);
		assert_true(rig_read(&r, 100000) >= 999);
		rig_drop_out(&r);
	}
	assert_int_equal(r.h.tcb->ooo_n, 0);
}

/* One octet in each segment, in order and not, and a reader that sleeps: neither the ring runs dry nor is more held than twice the buffer. */
static void one_octet_segments_pin_no_memory(void **state)
{
	(void)state;
	r.img.rcv_wnd = 60000;
	attack_start(HV_TCPO_SACK);
	for (uint32_t i = 0; i < 30000; i++) {
		in(&r, .seq = i + 2 * (i % 3), .len = 1);
		rig_drop_out(&r);
		assert_true(r.h.n_ring == 128);
		assert_true(r.h.tcb->rx_charge <= 2 * r.img.rcvbuf);
	}
}

/* Octets once taken aren't replaced by others with the same numbers, in the queue or behind a hole (else what an inspecting middlebox saw
 * isn't what the program reads). */
static void overlaps_do_not_rewrite(void **state)
{
	struct hv_tuple from;
	struct seg_spec s;
	uint8_t evil[64], frame[2048];

	(void)state;
	attack_start(HV_TCPO_SACK);
	memset(evil, 0xee, sizeof evil);
	in(&r, .seq = 10, .len = 20);
	for (uint32_t at = 10; at < 30; at++) {
		s = attack_spec(&from, at, 0);
		s.data = evil;
		s.len = 30 - at;
		(void)attack_frame(frame, seg_build(frame, &s));
	}
	in(&r, .seq = 0, .len = 10);
	s = attack_spec(&from, 0, 0);
	s.data = evil;
	s.len = 30;
	(void)attack_frame(frame, seg_build(frame, &s));
	rig_drop_out(&r);
	assert_int_equal(rig_read(&r, 100), 30); /* the rig compares */
}

/* Nothing right of the window that was offered is taken, whatever room there is. */
static void beyond_the_window(void **state)
{
	(void)state;
	r.img.rcv_wnd = 1000;
	attack_start(0);
	in(&r, .seq = 0, .len = 1400);
	assert_int_equal(attack_readable(), 1000);
	rig_drop_out(&r);
	r.hold = true;
	uint32_t edge = r.h.tcb->rcv_edge - r.irs;
	in(&r, .seq = edge, .len = 1);
	in(&r, .seq = edge + 1, .len = 100);
	assert_int_equal(attack_readable(), 1000);
	assert_int_equal(r.h.tcb->ooo_n, 0);
	rig_pump(&r);
}

/* The urgent pointer is the kernel's, which gets the segment untouched; without a believable segment around it, it is nobody's. */
static void urgent_pointer_games(void **state)
{
	static const uint16_t urg[] = { 0, 1, 9, 10, 11, 65535 };

	(void)state;
	attack_start(HV_TCPO_SACK);
	in(&r, .seq = 0, .len = 5);
	rig_drop_out(&r);
	for (uint32_t i = 0; i < 6; i++) {
		struct hv_tcp_image was, m;
		unsigned a;

		hv_tcp_export(r.h.tcb, &was, r.now);
		a = in(&r, .seq = 5, .len = 10, .flags = SEG_URG, .urg = urg[i]);
		assert_true(a & HV_TCP_DEMOTE);
		assert_false(a & (HV_TCP_KEPT | HV_TCP_READABLE));
		a = in(&r, .seq = 105, .len = 10, .flags = SEG_URG, .urg = urg[i]); /* behind a hole */
		assert_true(a & HV_TCP_DEMOTE);
		a = in(&r, .seq = 5, .flags = SEG_URG, .urg = urg[i]);              /* without text */
		assert_true(a & HV_TCP_DEMOTE);
		assert_false(in(&r, .seq = 40000, .len = 10, .flags = SEG_URG, .urg = urg[i]) & HV_TCP_DEMOTE);
		assert_false(in(&r, .seq = 0, .len = 5, .flags = SEG_URG, .urg = urg[i]) & HV_TCP_DEMOTE);
		assert_false(in(&r, .seq = 5, .ack = 70000, .len = 5, .flags = SEG_URG, .urg = urg[i]) & HV_TCP_DEMOTE);
		hv_tcp_export(r.h.tcb, &m, r.now);
		was.rcv_wup = m.rcv_wup; /* answers have carried an ACK */
		was.rcv_wnd = m.rcv_wnd;
		was.quickack = m.quickack; /* octets that come again are answered at once from now on */
		assert_memory_equal(&was, &m, sizeof m);
		rig_drop_out(&r);
	}
	/* the pointer without the flag means nothing */
	assert_true(in(&r, .seq = 5, .len = 10, .urg = 3) & HV_TCP_READABLE);
}

/* Receiver's SWS avoidance (RFC 9293 3.8.6.2.2): a reader that takes an octet at a time doesn't make the peer send one at a time. */
static void silly_window_receiver(void **state)
{
	uint32_t seq = 0, edge, moves = 0;

	(void)state;
	attack_start(0);
	while (r.h.tcb->rcv_edge != r.h.tcb->rcv_nxt && seq < 60000) {
		uint32_t n = hv_min32(1000, r.h.tcb->rcv_edge - r.h.tcb->rcv_nxt);

		in(&r, .seq = seq, .len = n);
		seq += n;
	}
	assert_in_range(seq, 20000, 40000);
	rig_drop_out(&r);
	edge = r.h.tcb->rcv_edge;
	for (uint32_t i = 0; i < seq; i++) {
		assert_int_equal(rig_read(&r, 1), 1);
		while (r.at_out != r.n_out) {
			struct rig_seg *s = rig_take(&r);
			uint32_t now = r.irs + s->ack + s->wnd;

			if (now != edge) {
				assert_true(hv_seq_gt(now, edge) && now - edge >= 1000);
				edge = now;
				moves++;
			}
		}
	}
	assert_in_range(moves, 1, 40);
}

/* Zero-window deadlocks of other stacks: the reader empties the queue, so the window opens by itself, by one segment or by several ... */
static void zero_window_opens_after_read(void **state)
{
	uint32_t seq;

	(void)state;
	for (uint32_t piece = 1; piece <= 64000; piece *= 40) {
		if (piece == 1)
			attack_start(HV_TCPO_SACK);
		seq = r.h.tcb->rcv_nxt - r.irs;
		while (r.h.tcb->rcv_edge != r.h.tcb->rcv_nxt) {
			uint32_t n = hv_min32(1000, r.h.tcb->rcv_edge - r.h.tcb->rcv_nxt);

			in(&r, .seq = seq, .len = n);
			seq += n;
		}
		rig_wait(&r, 1000000);
		assert_int_equal(r.out[r.n_out - 1].wnd, 0);
		rig_drop_out(&r);
		while (rig_read(&r, piece) != 0)
			;
		assert_true(r.n_out != 0);
		assert_int_equal(r.out[r.n_out - 1].ack, seq);
		assert_true(r.out[r.n_out - 1].wnd >= 16000);
		rig_drop_out(&r);
	}
}

/* ... and when that update is lost, the peer's probe is answered with the window as it is: with or without an octet in it, in Linux's way
 * (SEG.SEQ = RCV.NXT - 1) or in the old one (one octet behind the edge). */
static void zero_window_probe_is_answered(void **state)
{
	uint32_t seq = 0;

	(void)state;
	attack_start(HV_TCPO_SACK);
	while (r.h.tcb->rcv_edge != r.h.tcb->rcv_nxt) {
		uint32_t n = hv_min32(1000, r.h.tcb->rcv_edge - r.h.tcb->rcv_nxt);

		in(&r, .seq = seq, .len = n);
		seq += n;
	}
	rig_wait(&r, 1000000);
	for (int open = 0; open < 2; open++) {
		rig_drop_out(&r);
		for (int again = 0; again < 5; again++) { /* the limit on challenges isn't for them */
			in(&r, .seq = seq - 1);
			assert_int_equal(rig_ack(&r, seq)->wnd != 0, open);
			rig_none(&r);
			rig_wait(&r, 50000);
		}
		in(&r, .seq = seq - 1, .len = 1);
		assert_int_equal(rig_ack(&r, seq)->wnd != 0, open);
		rig_wait(&r, 1000000);
		in(&r, .seq = seq, .len = 1); /* a real octet: taken once there is room */
		rig_wait(&r, 500000);
		assert_int_equal(rig_ack(&r, seq + (uint32_t)open)->wnd != 0, open);
		rig_read(&r, 100000);
		rig_drop_out(&r); /* the update is lost */
	}
}

/* Both windows are zero and both sides have something to say: ACKs at the right edge count all the same (RFC 9293 3.10.7.4). */
static void both_windows_zero(void **state)
{
	uint32_t seq = 0;

	(void)state;
	attack_start(0);
	rig_write(&r, 5000);
	while (r.h.tcb->rcv_edge != r.h.tcb->rcv_nxt) {
		uint32_t n = hv_min32(1000, r.h.tcb->rcv_edge - r.h.tcb->rcv_nxt);

		in(&r, .seq = seq, .len = n);
		seq += n;
	}
	in(&r, .seq = seq, .ack = 3000, .zero_wnd = true);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 2000);
	in(&r, .seq = seq, .ack = 5000, .wnd = 30000);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
	rig_drop_out(&r);
	rig_write(&r, 700);
	rig_data(&r, 5000, 700);
}

/* The delayed ACK goes by its timer, whether or not the program ever calls again. */
static void delayed_ack_without_the_application(void **state)
{
	(void)state;
	attack_start(0);
	rig_opt(&r, HV_TCP_QUICKACK, 0);
	in(&r, .seq = 0, .len = 10);
	rig_none(&r);
	assert_in_range(hv_tcp_deadline(r.h.tcb) - r.now, 1, 500000);
	rig_next(&r);
	rig_ack(&r, 10);
	for (uint32_t i = 0; i < 10; i++) { /* and every second full segment is acknowledged at once */
		in(&r, .seq = 10 + 2000 * i, .len = 1000);
		in(&r, .seq = 1010 + 2000 * i, .len = 1000);
		assert_true(r.n_out != 0);
		assert_int_equal(r.out[r.n_out - 1].ack, 2010 + 2000 * i);
		rig_drop_out(&r);
	}
}

/* Options of length 0, 1, or longer than the header; timestamps twice; all of it in a segment that is otherwise fine. */
static void option_lengths(void **state)
{
	static const uint8_t bad[][12] = { { 8, 0 }, { 8, 1 }, { 254, 0 }, { 2, 1, 1, 1 }, { 5, 0 }, { 5, 1 }, { 1, 1, 1, 8, 10 }, { 8, 255 },
		{ 5, 255 }, { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 8 }, { 5, 3, 0 }, { 5, 2 }, { 8, 9, 0, 0, 27, 88, 0, 0, 0, 0 },
		{ 8, 10, 0, 0, 27, 88, 0, 0, 0, 0, 8, 0 } };
	struct hv_tuple from;
	uint8_t frame[2048], data[4];
	uint32_t at = 0;

	(void)state;
	attack_start(HV_TCPO_TS | HV_TCPO_SACK);
	for (uint32_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct seg_spec s = attack_spec(&from, at, 0);

		for (uint32_t k = 0; k < 4; k++)
			data[k] = rig_octet(false, at + k);
		s.opts = bad[i];
		s.opt_len = 12;
		s.data = data;
		s.len = 4;
		assert_true(attack_frame(frame, seg_build(frame, &s)) & HV_TCP_READABLE); /* as the kernel: options that can't be read aren't there */
		assert_int_equal(r.h.tcb->ts_recent, 7000);
		at += 4;
		assert_int_equal(attack_readable(), at);
	}
}

static void timestamps_twice(void **state)
{
	/* TSval 7001, then one that PAWS would refuse, then one far ahead */
	static const uint8_t o[32] = { 8, 10, 0, 0, 27, 89, 0, 0, 0, 0, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 8, 10, 0x70, 0, 0, 0, 0, 0, 0, 0, 1, 1 };
	struct hv_tuple from;
	uint8_t frame[2048], data[4];

	(void)state;
	attack_start(HV_TCPO_TS);
	for (uint32_t k = 0; k < 4; k++)
		data[k] = rig_octet(false, k);
	struct seg_spec s = attack_spec(&from, 0, 0);
	s.opts = o;
	s.opt_len = 32;
	s.data = data;
	s.len = 4;
	assert_true(attack_frame(frame, seg_build(frame, &s)) & HV_TCP_READABLE);
	assert_int_equal(r.h.tcb->ts_recent, 7001);
	assert_true(in(&r, .seq = 4, .len = 4, .tsval = 7001) & HV_TCP_READABLE);
	rig_drop_out(&r);
}

/* TCP header length below 20 or beyond the packet, IP lengths that don't fit the frame: refused before a segment comes of it. */
static void header_lengths_lie(void **state)
{
	struct hv_tuple from;
	uint8_t good[2048], frame[2048], data[40] = { 0 };
	bool v6 = r.img.tuple.family == 6;
	uint32_t l4 = v6 ? 54 : 34, n;

	(void)state;
	attack_start(0);
	struct seg_spec s = attack_spec(&from, 0, 0);
	s.data = data;
	s.len = sizeof data;
	n = seg_build(good, &s);
	for (uint32_t doff = 0; doff < 16; doff++) {
		if (doff == 5)
			continue;
		memcpy(frame, good, n);
		frame[l4 + 12] = (uint8_t)(doff << 4);
		host_fill_csum(frame, 14, l4, n);
		uint32_t segs = r.h.tcb->segs_in;
		(void)attack_frame(frame, n);
		assert_int_equal(r.h.tcb->segs_in - segs, doff > 5);
	}
	/* the same with less text than the header claims to be long */
	s.len = 8;
	n = seg_build(good, &s);
	uint32_t before = attack_readable();
	for (uint32_t doff = 8; doff < 16; doff++) {
		memcpy(frame, good, n);
		frame[l4 + 12] = (uint8_t)(doff << 4);
		host_fill_csum(frame, 14, l4, n);
		assert_int_equal(attack_frame(frame, n), HV_TCP_DROP);
	}
	/* IP says more than the frame has, or less than a header */
	for (uint32_t len = 0; len < 20; len++) {
		memcpy(frame, good, n);
		frame[v6 ? 18 : 16] = 0;
		frame[v6 ? 19 : 17] = (uint8_t)(v6 ? len : 20 + len);
		assert_int_equal(attack_frame(frame, n), HV_TCP_DROP);
	}
	memcpy(frame, good, n);
	frame[v6 ? 19 : 17]++;
	assert_int_equal(attack_frame(frame, n), HV_TCP_DROP);
	assert_int_equal(attack_readable(), before);
	rig_drop_out(&r);
	hv_tcp_read(r.h.tcb, &r.h.env, NULL, 100000, false, &(unsigned){ 0 }, r.now);
}

/* Ethernet pads to 60 octets: what lies behind the IP packet isn't text. */
static void ethernet_padding_is_no_text(void **state)
{
	struct hv_tuple from;
	uint8_t frame[2048], data[1] = { rig_octet(false, 0) };
	uint32_t n;

	(void)state;
	attack_start(0);
	struct seg_spec s = attack_spec(&from, 0, 0);
	memset(frame, 0x5a, sizeof frame);
	n = seg_build(frame, &s);
	(void)attack_frame(frame, n + 100);
	assert_int_equal(attack_readable(), 0);
	s.data = data;
	s.len = 1;
	memset(frame, 0x5a, sizeof frame);
	n = seg_build(frame, &s);
	assert_true(attack_frame(frame, n + 100) & HV_TCP_READABLE);
	assert_int_equal(attack_readable(), 1);
	assert_int_equal(rig_read(&r, 10), 1);
	rig_drop_out(&r);
}

/* Fragments and IPv6 extension headers are the kernel's: none is taken for a whole packet, first, middle or last. */
static void fragments(void **state)
{
	struct hv_tuple from;
	uint8_t good[2048], frame[2048], data[64] = { 0 };
	bool v6 = r.img.tuple.family == 6;
	uint32_t n;

	(void)state;
	attack_start(0);
	struct seg_spec s = attack_spec(&from, 0, 0);
	s.data = data;
	s.len = sizeof data;
	n = seg_build(good, &s);
	static const uint16_t frag[] = { 0x2000, 0x2001, 1, 0x1fff, 0x3fff, 0x6000 };
	for (uint32_t i = 0; i < 6; i++) {
		if (!v6) {
			memcpy(frame, good, n);
			frame[20] = (uint8_t)(frag[i] >> 8);
			frame[21] = (uint8_t)frag[i];
			host_fill_csum(frame, 14, 34, n);
			assert_int_equal(attack_frame(frame, n), HV_TCP_DROP);
		} else {
			memcpy(frame, good, 54);
			memset(frame + 54, 0, 8);
			frame[54] = 6; /* next header: TCP */
			frame[56] = (uint8_t)(frag[i] >> 8);
			frame[57] = (uint8_t)frag[i];
			memcpy(frame + 62, good + 54, n - 54);
			frame[19] = (uint8_t)(n - 54 + 8);
			frame[20] = 44;
			assert_int_equal(attack_frame(frame, n + 8), HV_TCP_DROP);
		}
	}
	assert_int_equal(attack_readable(), 0);
	assert_int_equal(r.h.tcb->segs_in, 0);
}

/* A frame's VLAN is told to the caller, who must not take it for one of another network; priority tags name none. */
static void vlan_tag_is_told(void **state)
{
	struct hv_tuple from;
	uint8_t frame[2048];
	struct hv_frame f;
	uint32_t n;

	(void)state;
	attack_start(0);
	struct seg_spec s = attack_spec(&from, 0, 0);
	n = seg_build(frame, &s);
	assert_true(hv_frame_parse(frame, n, &f));
	assert_int_equal(f.vlan, 0);
	s.vlan = true;
	n = seg_build(frame, &s);
	for (uint32_t vid = 0; vid < 4096; vid += 91) {
		for (uint32_t qinq = 0; qinq < 2; qinq++) {
			frame[12] = qinq != 0 ? 0x88 : 0x81;
			frame[13] = qinq != 0 ? 0xa8 : 0x00;
			frame[14] = (uint8_t)(0xe0 | vid >> 8);
			frame[15] = (uint8_t)vid;
			assert_true(hv_frame_parse(frame, n, &f));
			assert_int_equal(f.vlan, vid);
		}
	}
	/* a second tag inside the first: nothing of ours */
	memmove(frame + 18, frame + 14, n - 14);
	frame[16] = 0x81;
	frame[17] = 0;
	assert_false(hv_frame_parse(frame, n + 4, &f));
}

int main(void)
{
	const struct CMUnitTest tests[] = { ATTACK(segment_smack), ATTACK(one_octet_segments_pin_no_memory), ATTACK(overlaps_do_not_rewrite),
		ATTACK(beyond_the_window), ATTACK(urgent_pointer_games), ATTACK(silly_window_receiver), ATTACK(zero_window_opens_after_read),
		ATTACK(zero_window_probe_is_answered), ATTACK(both_windows_zero), ATTACK(delayed_ack_without_the_application),
		ATTACK(option_lengths), ATTACK(timestamps_twice), ATTACK(header_lengths_lie), ATTACK(ethernet_padding_is_no_text),
		ATTACK(fragments), ATTACK(vlan_tag_is_told) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
