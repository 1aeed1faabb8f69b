/*
 * skel_internal.h - the run-time half of a bpftool light skeleton (sv_steer.lskel.h includes it by this name).
 *
 * libbpf's own version of this header wants libbpf-dev installed and calls libc's close(). This one needs the kernel's uapi
 * headers only and makes raw system calls. The layout of the descriptors is what the loader program in the skeleton was
 * generated for (bpftool 7.1); regenerate both together.
 */
#ifndef SV_SKEL_INTERNAL_H
#define SV_SKEL_INTERNAL_H

#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/sys.h"

struct bpf_map_desc {
	int map_fd;
	__u32 max_entries;
	__aligned_u64 initial_value;
};

struct bpf_prog_desc {
	int prog_fd;
};

struct bpf_loader_ctx {
	__u32 sz, flags, log_level, log_size;
	__u64 log_buf;
};

struct bpf_load_and_run_opts {
	struct bpf_loader_ctx *ctx;
	const void *data, *insns;
	__u32 data_sz, insns_sz;
	const char *errstr;
};

static inline int skel_bpf(int cmd, union bpf_attr *a) { return (int)HV_SYS(SYS_bpf, cmd, a, sizeof *a, 0, 0, 0); }
static inline void *skel_alloc(size_t n) { return calloc(1, n); }
static inline void skel_free(void *p) { free(p); }

static inline void skel_closenz(int fd)
{
	if (fd > 0)
		hv_sys_close(fd);
}

/* Initial contents of a data map: anonymous pages now, replaced in place by the map's pages once it exists. */
static inline void *skel_prep_map_data(const void *val, size_t map_sz, size_t val_sz)
{
	void *p = mmap(NULL, map_sz, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	memcpy(p, val, val_sz);
	return p;
}

static inline void *skel_finalize_map_data(__u64 *init, size_t map_sz, int prot, int fd)
{
	void *p = mmap((void *)(uintptr_t)*init, map_sz, prot, MAP_SHARED | MAP_FIXED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

static inline void skel_free_map_data(void *p, __u64 init, size_t sz)
{
	(void)init;
	if (p != NULL)
		munmap(p, sz);
}

/* Give the loader program its data, run it once; it creates the maps and the program and writes their fds into ctx. */
static inline int bpf_load_and_run(struct bpf_load_and_run_opts *o)
{
	union bpf_attr a;
	__u32 zero = 0;
	int map, prog, r;

	memset(&a, 0, sizeof a);
	a.map_type = BPF_MAP_TYPE_ARRAY;
	a.key_size = sizeof zero;
	a.value_size = o->data_sz;
	a.max_entries = 1;
	strcpy(a.map_name, "sv_loader");
	map = skel_bpf(BPF_MAP_CREATE, &a);
	if (map < 0)
		return map;

	memset(&a, 0, sizeof a);
	a.map_fd = (__u32)map;
	a.key = (uintptr_t)&zero;
	a.value = (uintptr_t)o->data;
	r = skel_bpf(BPF_MAP_UPDATE_ELEM, &a);
	if (r < 0)
		goto out;

	memset(&a, 0, sizeof a);
	a.prog_type = BPF_PROG_TYPE_SYSCALL;
	a.insns = (uintptr_t)o->insns;
	a.insn_cnt = o->insns_sz / (__u32)sizeof(struct bpf_insn);
	a.license = (uintptr_t)"GPL";
	a.fd_array = (uintptr_t)&map;
	a.prog_flags = BPF_F_SLEEPABLE;
	strcpy(a.prog_name, "sv_loader");
	prog = skel_bpf(BPF_PROG_LOAD, &a);
	r = prog;
	if (prog < 0)
		goto out;

	memset(&a, 0, sizeof a);
	a.test.prog_fd = (__u32)prog;
	a.test.ctx_in = (uintptr_t)o->ctx;
	a.test.ctx_size_in = o->ctx->sz;
	r = skel_bpf(BPF_PROG_RUN, &a);
	if (r == 0 && (int)a.test.retval < 0)
		r = (int)a.test.retval;
	hv_sys_close(prog);
out:
	hv_sys_close(map);
	return r < 0 ? r : 0;
}

#endif
