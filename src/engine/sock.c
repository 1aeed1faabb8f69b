/*
 * sock.c - life of struct hv_sock: birth with an fd, duplicates, death.
 */
#include <fcntl.h>

#include "engine/internal.h"

struct hv_sock *hv_sock_new(int fd, int family, int type, bool nonblock)
{
	struct hv_sock *s = hv_obj_alloc(HV_SOCK_SIZE(type));

	if (s == NULL)
		return NULL;
	struct hv_sock_priv *p = (void *)(s + 1);
	socklen_t l = sizeof p->cookie;
	s->p = p;
	p->s = s;
	s->family = (uint8_t)family;
	s->type = (uint8_t)type;
	atomic_store_explicit(&s->refs, 1, memory_order_relaxed);
	atomic_store_explicit(&s->names, 1, memory_order_relaxed);
	atomic_store_explicit(&s->nonblock, nonblock, memory_order_relaxed);
	for (unsigned i = 0; i < HV_SOCK_FDS; i++)
		p->fds[i] = -1;
	p->fds[0] = fd;
	p->pend_tail = &p->pend;
	if (type == SOCK_STREAM)
		p->park.fd = fd;
	p->fork_gen = atomic_load(&G.fork_gen);
	atomic_store_explicit(&p->verified, p->fork_gen, memory_order_relaxed);
	bool off = (type == SOCK_STREAM && !hv_conf.tcp) || (type == SOCK_DGRAM && !hv_conf.udp) || hv_conf.promote_calls < 0;
	if (off || hv_sys_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &p->cookie, &l) < 0) {
		atomic_store_explicit(&s->pinned, true, memory_order_relaxed);
	}
	return s;
}

void hv_sock_ref(struct hv_sock *s)
{
	atomic_fetch_add(&s->refs, 1);
}

void hv_sock_put(struct hv_sock *s)
{
	if (atomic_fetch_sub(&s->refs, 1) == 1)
		hv_obj_free(s, HV_SOCK_SIZE(s->type));
}

static void drop_items(struct hv_sock *s, int fd)
{
	struct hv_epitem *it = s->p->items, *next;

	for (; it != NULL; it = next) {
		next = it->s_next;
		if (it->fd == fd)
			hv_epitem_drop(it);
	}
}

void hv_sock_fd_added(struct hv_sock *s, int newfd)
{
	unsigned i = 0;

	hv_lock(&G.lock);
	while (i < HV_SOCK_FDS && s->p->fds[i] >= 0)
		i++;
	if (i < HV_SOCK_FDS)
		s->p->fds[i] = newfd;
	hv_unlock(&G.lock);
	if (hv_fork_matters() && (hv_sys_fcntl(newfd, F_GETFD, 0) & FD_CLOEXEC) == 0)
		hv_sock_leaks(s);
	if (i == HV_SOCK_FDS)
		hv_sock_pin(s, HV_WHY_CALL); /* more names than we follow */
}

void hv_sock_fd_closed(struct hv_sock *s, int fd)
{
	bool vf;

	for (;;) { /* not while it moves: by this number, perhaps */
		vf = hv_sock_vf(s);
		if (!vf && !hv_kernel_enter(s))
			continue;
		hv_lock(&G.lock);
		if (hv_sock_vf(s) == vf)
			break;
		hv_unlock(&G.lock);
		if (!vf)
			hv_kernel_leave(s, 0);
	}
	for (unsigned i = 0; i < HV_SOCK_FDS; i++)
		if (s->p->fds[i] == fd)
			s->p->fds[i] = -1;
	int other = hv_sock_fd(s);
	/* The kernel keeps a registration until the last duplicate is gone; ours would have no descriptor to come back with. */
	if (hv_sock_vf(s)) {
		if (s->type == SOCK_STREAM && s->p->park.fd == fd && other >= 0)
			s->p->park.fd = other;
		for (struct hv_epitem *it = s->p->items; it != NULL; it = it->s_next)
			if (it->fd == fd && other >= 0)
				it->fd = other;
	} else if (other >= 0) {
		/* The kernel still has a registration that no descriptor of ours can remove: such a socket can't be parked. */
		for (struct hv_epitem *it = s->p->items; it != NULL; it = it->s_next)
			if (it->fd == fd)
				atomic_store(&s->pinned, true);
		drop_items(s, fd);
	}
	hv_unlock(&G.lock);
	if (!vf)
		hv_kernel_leave(s, 0);
}

void hv_error_hold(struct hv_sock *s, int err)
{
	switch (err) {
	case ECONNRESET:
	case ECONNREFUSED:
	case ETIMEDOUT:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EHOSTDOWN:
	case ENETDOWN:
	case EPROTO:
	case ENOPROTOOPT:
		atomic_store(&s->held_error, (uint8_t)err);
		break;
	default: /* of the call, not of the socket: the next one finds it by itself */
		break;
	}
}
