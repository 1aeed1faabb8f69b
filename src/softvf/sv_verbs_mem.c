/*
 * sv_verbs_mem.c - protection domains and memory regions.
 *
 * Registered memory stays ordinary memory, but registering has the effects that a program can notice: pages are faulted in,
 * unmapped ones fail, and without CAP_IPC_LOCK the bytes count against RLIMIT_MEMLOCK. The key table is read without a lock by
 * the data path; entries change under sv_ctx.lock.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include "softvf/sv_verbs.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

static uint64_t locked_bytes; /* of this process */

SV_EXPORT struct ibv_pd *ibv_alloc_pd(struct ibv_context *ctx)
{
	struct ibv_pd *pd;

	if (sv_dead(sv_ctx(ctx)->w)) {
		errno = EIO;
		return NULL;
	}
	pd = calloc(1, sizeof *pd);
	if (pd != NULL)
		pd->context = ctx;
	return pd;
}

SV_EXPORT int ibv_dealloc_pd(struct ibv_pd *pd)
{
	if (__atomic_load_n(&pd->handle, __ATOMIC_RELAXED) != 0) /* counts its QPs and MRs */
		return EBUSY;
	free(pd);
	return 0;
}

static int lock_bytes(size_t n)
{
	struct rlimit rl;

	if (sv_capable(CAP_IPC_LOCK)) {
		__atomic_add_fetch(&locked_bytes, n, __ATOMIC_RELAXED);
		return 0;
	}
	if (getrlimit(RLIMIT_MEMLOCK, &rl) < 0)
		return errno;
	if (__atomic_add_fetch(&locked_bytes, n, __ATOMIC_RELAXED) > rl.rlim_cur && rl.rlim_cur != RLIM_INFINITY) {
		__atomic_sub_fetch(&locked_bytes, n, __ATOMIC_RELAXED);
		return ENOMEM;
	}
	return 0;
}

static int populate(uintptr_t from, size_t n, bool writable)
{
	if (madvise((void *)from, n, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0 || errno == EINVAL) /* EINVAL: before Linux 5.14 */
		return 0;
	return errno == ENOMEM || errno == EFAULT ? EFAULT : errno;
}

static int key_alloc(struct sv_ctx *c, struct sv_mrent **out, uint32_t *key)
{
	uint32_t i, k;

	for (i = 0; i < SV_MR_CHUNKS; i++) {
		if (c->mrs[i] == NULL) {
			struct sv_mrent *e = calloc(SV_MR_CHUNK, sizeof *e);

			if (e == NULL)
				return ENOMEM;
			__atomic_store_n(&c->mrs[i], e, __ATOMIC_RELEASE);
		}
		for (k = i == 0 ? 1 : 0; k < SV_MR_CHUNK; k++) { /* key 0 stays invalid */
			if (c->mrs[i][k].lkey == 0) {
				*out = &c->mrs[i][k];
				*key = (i * SV_MR_CHUNK + k) << 8 | ++c->mrs[i][k].gen;
				return 0;
			}
		}
	}
	return ENOMEM;
}

static int reg(struct ibv_pd *pd, void *addr, size_t len, uint64_t iova, unsigned access, struct ibv_mr **out)
{
	struct sv_ctx *c = sv_ctx(pd->context);
	uintptr_t from = (uintptr_t)addr & ~(uintptr_t)4095, to = ((uintptr_t)addr + len + 4095) & ~(uintptr_t)4095;
	const unsigned known = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |
			       IBV_ACCESS_MW_BIND | (unsigned)IBV_ACCESS_OPTIONAL_RANGE;
	struct sv_mrent *e;
	struct sv_mr *m;
	uint32_t key;
	int r;

	if (sv_dead(c->w))
		return EIO;
	if (len == 0 || to < from || (access & ~known) != 0)
		return EINVAL;
	if ((access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)) && !(access & IBV_ACCESS_LOCAL_WRITE))
		return EINVAL;
	r = lock_bytes(to - from);
	if (r != 0)
		return r;
	r = populate(from, to - from, access & IBV_ACCESS_LOCAL_WRITE);
	m = r == 0 ? calloc(1, sizeof *m) : NULL;
	if (m == NULL) {
		__atomic_sub_fetch(&locked_bytes, to - from, __ATOMIC_RELAXED);
		return r != 0 ? r : ENOMEM;
	}
	pthread_mutex_lock(&c->lock);
	r = key_alloc(c, &e, &key);
	if (r == 0) {
		e->access = access;
		e->iova = iova;
		e->len = len;
		e->delta = (intptr_t)addr - (intptr_t)iova;
		e->pd = pd;
		__atomic_store_n(&e->lkey, key, __ATOMIC_RELEASE);
		m->locked = to - from;
		m->mr.context = pd->context;
		m->mr.pd = pd;
		m->mr.addr = addr;
		m->mr.length = len;
		m->mr.lkey = m->mr.rkey = m->mr.handle = key;
		__atomic_add_fetch(&pd->handle, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&c->lock);
	if (r != 0) {
		__atomic_sub_fetch(&locked_bytes, to - from, __ATOMIC_RELAXED);
		free(m);
		return r;
	}
	*out = &m->mr;
	return 0;
}

SV_EXPORT struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t len, uint64_t iova, unsigned access)
{
	struct ibv_mr *m = NULL;
	int r = reg(pd, addr, len, iova, access, &m);

	if (r != 0)
		errno = r;
	return m;
}

SV_EXPORT struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t len, int access)
{
	return ibv_reg_mr_iova2(pd, addr, len, (uintptr_t)addr, (unsigned)access);
}

SV_EXPORT struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t len, uint64_t iova, int access)
{
	return ibv_reg_mr_iova2(pd, addr, len, iova, (unsigned)access);
}

SV_EXPORT int ibv_dereg_mr(struct ibv_mr *mr)
{
	struct sv_mr *m = (struct sv_mr *)(void *)mr;
	struct sv_ctx *c = sv_ctx(mr->context);
	uint32_t i = mr->lkey >> 8;

	pthread_mutex_lock(&c->lock);
	__atomic_store_n(&c->mrs[i / SV_MR_CHUNK][i % SV_MR_CHUNK].lkey, 0, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&c->lock);
	__atomic_sub_fetch(&locked_bytes, m->locked, __ATOMIC_RELAXED);
	__atomic_sub_fetch(&mr->pd->handle, 1, __ATOMIC_RELAXED);
	free(m);
	return 0;
}

/* these have an IBVERBS_1.0 form as well, see sv_stubs.def */
SV_VERSION(ibv_alloc_pd)
SV_VERSION(ibv_dealloc_pd)
SV_VERSION(ibv_reg_mr)
SV_VERSION(ibv_dereg_mr)
