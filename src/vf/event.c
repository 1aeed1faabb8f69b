/*
 * event.c - what wakes a sleeping thread: the completion channel; async events; and what is left of a ring in a forked child. Callers: arm and ack under
 * the ring lock, async_next in one thread at a time, never beside hv_vf_close(): destroying an object waits for events that were read but not acked.
 */
#include <stdlib.h>
#include "base/log.h"
#include "base/sys.h"
#include "vf/internal.h"

int hv_vf_channel_fd(const struct hv_vf *vf)
{
	return vf->channel->fd;
}

int hv_vf_arm(struct hv_vf *vf)
{
	int r;

	hv_inside_enter();
	r = ibv_req_notify_cq(vf->rcq, 0);
	/* Send completions wake nobody as long as there is room: a request's own completion would otherwise end the sleep before its answer. */
	if (r == 0 && hv_vf_tx_room(vf) < vf->sq / 4)
		r = ibv_req_notify_cq(vf->scq, 0);
	hv_inside_leave();
	vf->n.arms++;
	return r == 0 ? 0 : r > 0 ? -r : -EIO;
}

void hv_vf_channel_ack(struct hv_vf *vf)
{
	int saved = errno;
	struct ibv_cq *cq;
	void *arg;

	hv_inside_enter();
	for (unsigned i = 0; i < 64; i++) { /* two CQs: more than a few events can't be pending, but a dead descriptor may report for ever */
		if (hv_verbs.ibv_get_cq_event(vf->channel, &cq, &arg) != 0)
			break;
		hv_verbs.ibv_ack_cq_events(cq, 1);
		vf->n.wakes++;
	}
	hv_inside_leave();
	errno = saved;
}

int hv_vf_async_fd(const struct hv_vf *vf)
{
	return vf->ctx->async_fd;
}

bool hv_vf_async_next(struct hv_vf *vf, struct hv_vf_async *ev)
{
	struct ibv_async_event e;
	int saved = errno, r, err;

	*ev = (struct hv_vf_async){ 0 };
	if (vf->async_lost)
		return false;
	hv_inside_enter();
	errno = 0;
	r = hv_verbs.ibv_get_async_event(vf->ctx, &e);
	err = errno;
	if (r == 0)
		hv_verbs.ibv_ack_async_event(&e);
	hv_inside_leave();
	errno = saved;
	if (r != 0) {
		if (err == EAGAIN || err == EINTR)
			return false;
		vf->async_lost = true;
		ev->fatal = true;
		ev->text = "async events cannot be read";
		return true;
	}
	switch (e.event_type) {
	case IBV_EVENT_DEVICE_FATAL:
		ev->fatal = true;
		ev->text = "device fatal";
		break;
	case IBV_EVENT_PORT_ERR:
		ev->port_down = true;
		ev->text = "port down";
		break;
	case IBV_EVENT_PORT_ACTIVE:
		ev->port_up = true;
		ev->text = "port up";
		break;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_CQ_ERR:
	case IBV_EVENT_WQ_FATAL:
		ev->qp_fatal = true;
		ev->text = "queue in error";
		break;
	default:
		ev->text = "event without consequence";
		break;
	}
	return true;
}

/*
 * In the child the region isn't there (MADV_DONTFORK) and the provider's objects are the parent's. What must go are the descriptors: they would keep the
 * device's queues alive after the parent is gone. Verbs objects and their memory stay as they are: any destroy call would reach the parent's hardware.
 */
void hv_vf_child_forget(struct hv_vf *vf)
{
	if (vf->channel != NULL)
		hv_sys_close(vf->channel->fd);
	if (vf->ctx != NULL) {
		if (vf->ctx->async_fd >= 0)
			hv_sys_close(vf->ctx->async_fd);
		if (vf->ctx->cmd_fd >= 0)
			hv_sys_close(vf->ctx->cmd_fd);
	}
	while (vf->flows != NULL) {
		struct hv_vf_flow *f = vf->flows;

		vf->flows = f->next;
		free(f);
	}
	free(vf->post_ns);
	free(vf->bufs);
	free(vf->chunks);
	free(vf);
}
