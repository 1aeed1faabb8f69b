/*
 * sv_verbs_dev.c - device list, contexts, queries, async events.
 *
 * Owns the list of this process's contexts (list_lock) and the cache of device entries (never freed: a program may keep the
 * pointer of an entry after ibv_free_device_list(), and a name that comes back gets its old entry).
 */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include "softvf/sv_verbs.h"

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sv_ctx *contexts;
static struct sv_dev *devices;

/* Effective capability of the calling thread: what the kernel's verbs core looks at. */
bool sv_capable(unsigned cap)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2];

	memset(d, 0, sizeof d);
	if (HV_SYS(SYS_capget, &h, d, 0, 0, 0, 0) < 0)
		return false;
	return d[cap / 32].effective & (1u << cap % 32);
}

/* ---- device list ---- */
static bool wanted(const struct sv_link *l)
{
	const char *p = getenv("SOFTVF_DEVICES");

	if (p == NULL || *p == '\0')
		return strcmp(l->kind, "veth") == 0;
	while (*p != '\0') {
		char pat[64];
		size_t n = strcspn(p, ",");

		if (n > 0 && n < sizeof pat) {
			memcpy(pat, p, n);
			pat[n] = '\0';
			if (fnmatch(pat, l->name, 0) == 0)
				return true;
		}
		p += n;
		p += *p == ',';
	}
	return false;
}

struct scan {
	struct sv_dev **list;
	int n, cap;
};

static int scan_one(const struct sv_link *l, void *arg)
{
	struct scan *s = arg;
	struct sv_dev *d;

	if (!wanted(l))
		return 0;
	if (s->n + 1 >= s->cap) {
		int cap = s->cap * 2 + 8;
		struct sv_dev **n = realloc(s->list, (size_t)cap * sizeof(void *));

		if (n == NULL)
			return -ENOMEM;
		s->list = n;
		s->cap = cap;
	}
	for (d = devices; d != NULL; d = d->next)
		if (d->link.ifindex == l->ifindex && strcmp(d->link.name, l->name) == 0 && memcmp(d->link.mac, l->mac, 6) == 0)
			break;
	if (d == NULL) {
		d = calloc(1, sizeof *d);
		if (d == NULL)
			return -ENOMEM;
		d->link = *l;
		d->dev.node_type = IBV_NODE_CA;
		d->dev.transport_type = IBV_TRANSPORT_IB;
		snprintf(d->dev.name, sizeof d->dev.name, "softvf_%s", l->name);
		snprintf(d->dev.dev_name, sizeof d->dev.dev_name, "uverbs_softvf%d", l->ifindex);
		snprintf(d->dev.dev_path, sizeof d->dev.dev_path, "/sys/class/infiniband_verbs/%.63s", d->dev.dev_name);
		snprintf(d->dev.ibdev_path, sizeof d->dev.ibdev_path, "/sys/class/infiniband/%.63s", d->dev.name);
		d->next = devices;
		devices = d;
	}
	s->list[s->n++] = d;
	s->list[s->n] = NULL;
	return 0;
}

SV_EXPORT struct ibv_device **ibv_get_device_list(int *num)
{
	struct scan s = { NULL, 0, 0 };
	int r;

	pthread_mutex_lock(&list_lock);
	r = sv_link_list(scan_one, &s);
	pthread_mutex_unlock(&list_lock);
	if (num != NULL)
		*num = r < 0 ? 0 : s.n;
	if (r < 0) {
		free(s.list);
		errno = -r;
		return NULL;
	}
	return (struct ibv_device **)(void *)(s.list != NULL ? s.list : calloc(1, sizeof(void *)));
}

SV_EXPORT void ibv_free_device_list(struct ibv_device **list) { free(list); }
SV_EXPORT const char *ibv_get_device_name(struct ibv_device *d) { return d->name; }
SV_EXPORT int ibv_get_device_index(struct ibv_device *d) { return ((struct sv_dev *)(void *)d)->link.ifindex; }

SV_EXPORT __be64 ibv_get_device_guid(struct ibv_device *d)
{
	const uint8_t *m = ((struct sv_dev *)(void *)d)->link.mac;
	uint8_t g[8] = { m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5] };
	__be64 r;

	memcpy(&r, g, sizeof r);
	return r;
}

/* ---- contexts ---- */
SV_EXPORT struct ibv_context *ibv_open_device(struct ibv_device *dev)
{
	const struct sv_dev *d = (const struct sv_dev *)(const void *)dev;
	struct sv_ctx *c = calloc(1, sizeof *c);
	struct verbs_context *v;
	int fd[2], r;

	if (c == NULL)
		return NULL;
	r = (int)HV_SYS(SYS_pipe2, fd, O_CLOEXEC, 0, 0, 0, 0);
	if (r < 0) {
		free(c);
		errno = -r;
		return NULL;
	}
	c->async_rd = hv_sys_high(fd[0]);
	c->async_wr = hv_sys_high(fd[1]);
	(void)hv_sys_fcntl(c->async_wr, F_SETFL, O_NONBLOCK); /* the read end is the program's */
	pthread_mutex_init(&c->lock, NULL);
	v = &c->v;
	v->sz = sizeof *v;
	v->query_port = sv_query_port;
	v->create_cq_ex = sv_create_cq_ex;
	v->query_device_ex = sv_query_device_ex;
	v->ibv_create_flow = sv_create_flow;
	v->ibv_destroy_flow = sv_destroy_flow;
	v->create_qp_ex = sv_create_qp_ex;
	v->context.device = dev;
	v->context.abi_compat = __VERBS_ABI_IS_EXTENDED;
	v->context.async_fd = c->async_rd;
	v->context.cmd_fd = -1;
	v->context.num_comp_vectors = 1;
	pthread_mutex_init(&v->context.mutex, NULL);
	v->context.ops.poll_cq = sv_poll_cq;
	v->context.ops.req_notify_cq = sv_req_notify_cq;
	v->context.ops.post_send = sv_post_send;
	v->context.ops.post_recv = sv_post_recv;

	pthread_mutex_lock(&list_lock);
	r = sv_wire_open(&c->w, d->link.ifindex, d->link.name, sv_notify, sv_progress);
	if (r == 0) {
		c->next = contexts;
		contexts = c;
	}
	pthread_mutex_unlock(&list_lock);
	if (r < 0) {
		hv_sys_close(fd[0]);
		hv_sys_close(fd[1]);
		free(c);
		errno = -r;
		return NULL;
	}
	return &v->context;
}

SV_EXPORT int ibv_close_device(struct ibv_context *ctx)
{
	struct sv_ctx *c = sv_ctx(ctx), **p;
	unsigned i;

	pthread_mutex_lock(&list_lock);
	for (p = &contexts; *p != NULL && *p != c; p = &(*p)->next)
		;
	if (*p != NULL)
		*p = c->next;
	pthread_mutex_unlock(&list_lock);
	sv_wire_close(c->w); /* joins the monitor, which takes list_lock */
	hv_sys_close(c->async_rd);
	hv_sys_close(c->async_wr);
	for (i = 0; i < SV_MR_CHUNKS; i++)
		free(c->mrs[i]);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&ctx->mutex);
	free(c);
	return 0;
}

/* ---- async events ---- */
struct async_rec {
	enum ibv_event_type type;
	void *element;
};

void sv_async_push(struct sv_ctx *c, enum ibv_event_type type, void *element)
{
	struct async_rec a;

	memset(&a, 0, sizeof a);
	a.type = type;
	a.element = element;
	(void)hv_sys_write(c->async_wr, &a, sizeof a); /* full: nobody reads them */
}

/* From the monitor thread. */
void sv_notify(struct sv_wire *w, enum sv_event ev)
{
	static const enum ibv_event_type type[] = {
		[SV_EV_FATAL] = IBV_EVENT_DEVICE_FATAL, [SV_EV_DOWN] = IBV_EVENT_PORT_ERR, [SV_EV_UP] = IBV_EVENT_PORT_ACTIVE,
	};
	struct sv_ctx *c;
	struct sv_chan *ch;

	pthread_mutex_lock(&list_lock);
	for (c = contexts; c != NULL; c = c->next) {
		if (c->w != w)
			continue;
		if (ev == SV_EV_FATAL) {
			pthread_mutex_lock(&c->lock);
			for (ch = c->chans; ch != NULL; ch = ch->next)
				sv_chan_dead(ch);
			pthread_mutex_unlock(&c->lock);
		}
		sv_async_push(c, type[ev], NULL);
	}
	pthread_mutex_unlock(&list_lock);
}

SV_EXPORT int ibv_get_async_event(struct ibv_context *ctx, struct ibv_async_event *e)
{
	struct async_rec a;
	long r = hv_sys_read(ctx->async_fd, &a, sizeof a);

	if (r != (long)sizeof a) {
		errno = r < 0 ? (int)-r : EIO;
		return -1;
	}
	memset(e, 0, sizeof *e);
	e->event_type = a.type;
	if (a.type == IBV_EVENT_CQ_ERR)
		e->element.cq = a.element;
	else if (a.type != IBV_EVENT_DEVICE_FATAL)
		e->element.port_num = 1;
	return 0;
}

SV_EXPORT void ibv_ack_async_event(struct ibv_async_event *e) { (void)e; }

/* ---- queries ---- */
static void fill_attr(const struct sv_ctx *c, struct ibv_device_attr *a)
{
	memset(a, 0, sizeof *a);
	strcpy(a->fw_ver, "softvf");
	a->node_guid = a->sys_image_guid = ibv_get_device_guid(c->v.context.device);
	a->max_mr_size = ~(uint64_t)0;
	a->page_size_cap = 4096;
	a->max_qp = (int)SV_WIRE_QPS - 1;
	a->max_qp_wr = (int)SV_MAX_WR;
	a->device_cap_flags = IBV_DEVICE_RAW_IP_CSUM;
	a->max_sge = a->max_sge_rd = (int)SV_MAX_SGE;
	a->max_cq = 65536;
	a->max_cqe = (int)SV_MAX_CQE;
	a->max_mr = (int)(SV_MR_CHUNK * SV_MR_CHUNKS) - 1;
	a->max_pd = 65536;
	a->atomic_cap = IBV_ATOMIC_NONE;
	a->max_pkeys = 1;
	a->phys_port_cnt = 1;
}

SV_EXPORT int ibv_query_device(struct ibv_context *ctx, struct ibv_device_attr *a)
{
	if (sv_dead(sv_ctx(ctx)->w))
		return EIO;
	fill_attr(sv_ctx(ctx), a);
	return 0;
}

int sv_query_device_ex(struct ibv_context *ctx, const struct ibv_query_device_ex_input *in, struct ibv_device_attr_ex *a, size_t sz)
{
	struct ibv_device_attr_ex t;

	if (in != NULL && in->comp_mask != 0)
		return EINVAL;
	if (sz < sizeof a->orig_attr)
		return EINVAL;
	if (sv_dead(sv_ctx(ctx)->w))
		return EIO;
	memset(&t, 0, sizeof t);
	fill_attr(sv_ctx(ctx), &t.orig_attr);
	t.device_cap_flags_ex = t.orig_attr.device_cap_flags;
	t.raw_packet_caps = IBV_RAW_PACKET_CAP_IP_CSUM;
	t.tso_caps.max_tso = SV_TSO_MAX;
	t.tso_caps.supported_qpts = 1u << IBV_QPT_RAW_PACKET;
	t.phys_port_cnt_ex = 1;
	memset(a, 0, sz);
	memcpy(a, &t, sz < sizeof t ? sz : sizeof t);
	return 0;
}

int sv_query_port(struct ibv_context *ctx, uint8_t port, struct ibv_port_attr *p, size_t len)
{
	struct sv_ctx *c = sv_ctx(ctx);
	struct ibv_port_attr a;
	struct sv_link l;

	if (sv_dead(c->w))
		return EIO;
	if (port != 1)
		return EINVAL;
	if (sv_wire_query(c->w, &l) < 0)
		return EIO;
	memset(&a, 0, sizeof a);
	a.state = (l.flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING) ? IBV_PORT_ACTIVE : IBV_PORT_DOWN;
	a.max_mtu = IBV_MTU_4096;
	for (a.active_mtu = IBV_MTU_4096; a.active_mtu > IBV_MTU_256 && l.mtu < 128u << a.active_mtu;) /* the largest that fits */
		a.active_mtu--;
	a.gid_tbl_len = 1;
	a.pkey_tbl_len = 1;
	a.max_msg_sz = SV_FRAME_MAX;
	a.phys_state = a.state == IBV_PORT_ACTIVE ? 5 : 3;
	a.link_layer = IBV_LINK_LAYER_ETHERNET;
	a.active_speed = 32; /* 25 Gbit/s */
	a.active_width = 1;
	memset(p, 0, len);
	memcpy(p, &a, len < sizeof a ? len : sizeof a);
	return 0;
}

/* Old programs: the struct ended with link_layer and a pad octet. */
SV_EXPORT int ibv_query_port(struct ibv_context *ctx, uint8_t port, struct _compat_ibv_port_attr *p)
{
	return sv_query_port(ctx, port, (struct ibv_port_attr *)(void *)p, offsetof(struct ibv_port_attr, flags));
}

static void make_gid(const struct sv_ctx *c, union ibv_gid *g)
{
	__be64 guid = ibv_get_device_guid(c->v.context.device);

	memset(g, 0, sizeof *g);
	g->raw[0] = 0xfe;
	g->raw[1] = 0x80;
	memcpy(g->raw + 8, &guid, 8);
}

SV_EXPORT int ibv_query_gid(struct ibv_context *ctx, uint8_t port, int index, union ibv_gid *gid)
{
	if (port != 1 || index != 0 || sv_dead(sv_ctx(ctx)->w)) {
		errno = port != 1 || index != 0 ? EINVAL : EIO;
		return -1;
	}
	make_gid(sv_ctx(ctx), gid);
	return 0;
}

SV_EXPORT int _ibv_query_gid_ex(struct ibv_context *ctx, uint32_t port, uint32_t index, struct ibv_gid_entry *e, uint32_t flags, size_t sz);
SV_EXPORT int _ibv_query_gid_ex(struct ibv_context *ctx, uint32_t port, uint32_t index, struct ibv_gid_entry *e, uint32_t flags, size_t sz)
{
	const struct sv_ctx *c = sv_ctx(ctx);
	struct ibv_gid_entry t;

	if (flags != 0 || port != 1)
		return EINVAL;
	if (index != 0)
		return ENODATA;
	if (sv_dead(c->w))
		return EIO;
	memset(&t, 0, sizeof t);
	make_gid(c, &t.gid);
	t.port_num = 1;
	t.gid_type = IBV_GID_TYPE_ROCE_V2;
	t.ndev_ifindex = (uint32_t)c->w->link.ifindex;
	memset(e, 0, sz);
	memcpy(e, &t, sz < sizeof t ? sz : sizeof t);
	return 0;
}

SV_EXPORT ssize_t _ibv_query_gid_table(struct ibv_context *ctx, struct ibv_gid_entry *e, size_t n, uint32_t flags, size_t sz);
SV_EXPORT ssize_t _ibv_query_gid_table(struct ibv_context *ctx, struct ibv_gid_entry *e, size_t n, uint32_t flags, size_t sz)
{
	int r = n == 0 ? EINVAL : _ibv_query_gid_ex(ctx, 1, 0, e, flags, sz);

	return r != 0 ? -r : 1;
}

SV_EXPORT int ibv_query_pkey(struct ibv_context *ctx, uint8_t port, int index, __be16 *pkey)
{
	(void)ctx;
	if (port != 1 || index != 0) {
		errno = EINVAL;
		return -1;
	}
	*pkey = 0xffff;
	return 0;
}

/* these have an IBVERBS_1.0 form as well, see sv_stubs.def */
SV_VERSION(ibv_get_device_list)
SV_VERSION(ibv_free_device_list)
SV_VERSION(ibv_get_device_name)
SV_VERSION(ibv_get_device_guid)
SV_VERSION(ibv_open_device)
SV_VERSION(ibv_close_device)
SV_VERSION(ibv_get_async_event)
SV_VERSION(ibv_ack_async_event)
SV_VERSION(ibv_query_device)
SV_VERSION(ibv_query_port)
SV_VERSION(ibv_query_gid)
SV_VERSION(ibv_query_pkey)
