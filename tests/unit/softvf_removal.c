/* A netdev that disappears is hardware that was hot-removed: silence, a fatal event, EIO from control verbs, success from destroy verbs. */
#include "softvf_rig.h"

#include <sys/epoll.h>

static int up(void **state)
{
	(void)state;
	world_up(1500);
	return 0;
}

static int down(void **state)
{
	(void)state;
	world_down();
	return 0;
}

/* The next async event, within some seconds. */
static enum ibv_event_type next_event(struct ibv_context *c)
{
	struct pollfd p = { .fd = c->async_fd, .events = POLLIN };
	struct ibv_async_event e;

	if (poll(&p, 1, 5000) != 1)
		fail_msg("no async event");
	assert_int_equal(ibv_get_async_event(c, &e), 0);
	ibv_ack_async_event(&e);
	return e.event_type;
}

static void removal(void **state)
{
	struct ibv_qp_attr qa = { .qp_state = IBV_QPS_ERR };
	struct ibv_device_attr da;
	struct ibv_device **l;
	struct ibv_port_attr pa;
	struct epoll_event ev;
	struct ibv_flow *f;
	struct ibv_cq *cq;
	struct ibv_wc wc;
	struct rig r;
	enum ibv_event_type t;
	void *cx;
	int s, i, n, ep;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 16, false, true);
	assert_non_null(f = rule(r.qp, false, 0, 7777, 0));
	s = peer_udp(9999, false);
	for (i = 0; i < 3; i++)
		peer_send(s, false, 7777, "before", 6);
	assert_true((ep = epoll_create1(0)) >= 0); /* the channel's fd nested, as an event loop would have it */
	ev.events = EPOLLIN;
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, r.ch->fd, &ev), 0);
	assert_int_equal(run("ip link del " VF), 0);
	while ((t = next_event(r.ctx)) != IBV_EVENT_DEVICE_FATAL)
		assert_int_equal(t, IBV_EVENT_PORT_ERR);
	/* what had arrived is still there, in order, and after it nothing: no flush of the 13 other receives */
	for (i = 0; i < 3; i++) {
		assert_true(poll_one(r.rcq, &wc));
		assert_int_equal(wc.status, IBV_WC_SUCCESS);
		assert_int_equal(wc.wr_id, i);
		assert_memory_equal(rx_buf(&r, wc.wr_id) + 42, "before", 6);
	}
	assert_true(silent(r.rcq, 50));
	/* sends go nowhere, without a word, until the queue is full */
	for (i = 0; i < 16; i++) {
		n = (int)make_udp(tx_buf(&r, (uint64_t)i), 7777, 9999, "lost", 4);
		assert_int_equal(post_tx(&r, (uint64_t)i, (uint32_t)n, IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM), 0);
	}
	assert_int_equal(post_tx(&r, 16, 46, IBV_SEND_SIGNALED), ENOMEM);
	assert_true(silent(r.scq, 50));
	/* three receive slots came free with the three completions */
	for (i = 0; i < 3; i++)
		assert_int_equal(post_rx(&r, r.qp, (uint64_t)i), 0);
	assert_int_equal(post_rx(&r, r.qp, 3), ENOMEM);
	/* the channel: readable, and reading fails, again and again */
	for (i = 0; i < 2; i++) {
		assert_int_equal(epoll_wait(ep, &ev, 1, 5000), 1);
		errno = 0;
		assert_int_equal(ibv_get_cq_event(r.ch, &cq, &cx), -1);
		assert_int_equal(errno, EIO);
	}
	assert_int_equal(ibv_req_notify_cq(r.rcq, 0), 0);
	/* control verbs */
	assert_int_equal(ibv_query_device(r.ctx, &da), EIO);
	assert_int_equal(ibv_query_port(r.ctx, 1, &pa), EIO);
	assert_int_equal(ibv_modify_qp(r.qp, &qa, IBV_QP_STATE), EIO);
	errno = 0;
	assert_null(ibv_alloc_pd(r.ctx));
	assert_int_equal(errno, EIO);
	errno = 0;
	assert_null(ibv_reg_mr(r.pd, r.buf, 4096, IBV_ACCESS_LOCAL_WRITE));
	assert_int_equal(errno, EIO);
	errno = 0;
	assert_null(ibv_create_cq(r.ctx, 16, NULL, NULL, 0));
	assert_int_equal(errno, EIO);
	errno = 0;
	assert_null(rule(r.qp, false, 0, 7778, 0));
	assert_int_equal(errno, EIO);
	/* the list has forgotten it; what comes back under its name is another device */
	assert_non_null(l = ibv_get_device_list(&n));
	assert_int_equal(n, 0);
	ibv_free_device_list(l);
	close(s);
	close(ep);
	assert_int_equal(ibv_destroy_flow(f), 0);
	rig_down(&r);

	world_up(1500);
	rig_up(&r, VF, RIG_BUF, 16, false, false);
	assert_non_null(f = rule(r.qp, false, 0, 7777, 0));
	s = peer_udp(9999, false);
	peer_send(s, false, 7777, "again", 5);
	assert_true(poll_one(r.rcq, &wc));
	assert_memory_equal(rx_buf(&r, wc.wr_id) + 42, "again", 5);
	close(s);
	assert_int_equal(ibv_destroy_flow(f), 0);
	rig_down(&r);
}

/* Sends all the while: no completion may claim success for a frame that the device refused. */
static void removal_while_sending(void **state)
{
	struct ibv_wc wc;
	struct rig r;
	unsigned long posted = 0, done = 0;
	uint64_t end = now_ms() + 5000;
	bool fatal = false;
	pid_t child;
	int s, st, e = 0, n;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 64, false, false);
	assert_int_equal(fcntl(r.ctx->async_fd, F_SETFL, O_NONBLOCK), 0);
	s = peer_udp(9999, false);
	n = 16 << 20;
	assert_int_equal(setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &n, sizeof n), 0);
	n = (int)make_udp(tx_buf(&r, 0), 7777, 9999, "x", 1);
	child = fork();
	if (child == 0) {
		usleep(30000);
		_exit(run("ip link del " VF) != 0);
	}
	while (now_ms() < end && !(fatal && e == ENOMEM)) {
		struct ibv_async_event a;

		e = post_tx(&r, 0, (uint32_t)n, IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM);
		posted += e == 0;
		if (e != 0)
			assert_int_equal(e, ENOMEM);
		while (ibv_poll_cq(r.scq, 1, &wc) == 1) {
			assert_int_equal(wc.status, IBV_WC_SUCCESS);
			done++;
		}
		while (ibv_get_async_event(r.ctx, &a) == 0)
			fatal |= a.event_type == IBV_EVENT_DEVICE_FATAL;
	}
	assert_int_equal(waitpid(child, &st, 0), child);
	assert_int_equal(st, 0);
	assert_true(fatal);
	assert_int_equal(e, ENOMEM);
	assert_true(silent(r.scq, 20));
	assert_int_equal(posted - done, 64);
	assert_true(done > 0);
	close(s);
	rig_down(&r);
}

/* Administratively down isn't removal: PORT_ERR, sends wait, and leave when the link is back. */
static void admin_down(void **state)
{
	struct ibv_port_attr pa;
	struct ibv_wc wc;
	struct rig r;
	uint32_t n;
	char b[16];
	int s, i;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 16, false, false);
	assert_int_equal(ibv_query_port(r.ctx, 1, &pa), 0);
	assert_int_equal(pa.state, IBV_PORT_ACTIVE);
	s = peer_udp(9999, false);
	assert_int_equal(run("ip link set " VF " down"), 0);
	assert_int_equal(next_event(r.ctx), IBV_EVENT_PORT_ERR);
	assert_int_equal(ibv_query_port(r.ctx, 1, &pa), 0);
	assert_int_equal(pa.state, IBV_PORT_DOWN);
	for (i = 0; i < 4; i++) {
		n = make_udp(tx_buf(&r, (uint64_t)i), 7777, 9999, "waited", 6);
		assert_int_equal(post_tx(&r, (uint64_t)i, n, IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM), 0);
	}
	assert_true(silent(r.scq, 50));
	assert_int_equal(run("ip link set " VF " up"), 0);
	assert_int_equal(next_event(r.ctx), IBV_EVENT_PORT_ACTIVE);
	for (i = 0; i < 4; i++) {
		assert_true(poll_one(r.scq, &wc));
		assert_int_equal(wc.status, IBV_WC_SUCCESS);
		assert_int_equal(wc.wr_id, i);
		assert_int_equal(recv(s, b, sizeof b, 0), 6);
		assert_memory_equal(b, "waited", 6);
	}
	close(s);
	rig_down(&r);
}

int main(void)
{
	const struct CMUnitTest t[] = {
		cmocka_unit_test_setup_teardown(removal, up, down),
		cmocka_unit_test_setup_teardown(removal_while_sending, up, down),
		cmocka_unit_test_setup_teardown(admin_down, up, down),
	};
	int r = world_init();

	return r != 0 ? r : cmocka_run_group_tests(t, NULL, NULL);
}
