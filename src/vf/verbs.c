/*
 * verbs.c - loads libibverbs at first use and keeps the table of its functions. Owns that table. Callers: src/vf only, under no lock.
 *
 * The library stays loaded for the life of the process: providers keep threads, registered callbacks and TLS behind.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "base/conf.h"
#include "base/log.h"
#include "base/sys.h"
#include "vf/verbs.h"

struct hv_verbs hv_verbs;

enum { NOT_LOADED, LOADED };
static int state;
static int loader; /* pid of the process one of whose threads is loading, 0: none. Compared, so that a child forked meanwhile isn't stuck */

static const struct {
	const char *name, *version;
	size_t off;
	bool needed;
} symbols[] = {
#define HV_SYM(need, ver, ret, sym, args) { #sym, ver, offsetof(struct hv_verbs, sym), need },
	HV_VERBS_SYMBOLS
#undef HV_SYM
};

static bool resolve(void *lib, const char *path)
{
	struct hv_verbs t;

	for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
		/* the default version may be newer than the prototype that this was compiled with */
		void *p = dlvsym(lib, symbols[i].name, symbols[i].version);

		if (p == NULL)
			p = dlsym(lib, symbols[i].name);
		if (p == NULL && symbols[i].needed) {
			hv_log(HV_LOG_INFO, "%s lacks %s: not a libibverbs, or one older than version 1.1", path, symbols[i].name);
			return false;
		}
		memcpy((char *)&t + symbols[i].off, &p, sizeof p);
	}
	hv_verbs = t;
	return true;
}

static bool load(void)
{
	const char *path = hv_conf.verbs;
	void *lib;
	bool ok = false;

	if (path == NULL || *path == '\0')
		path = "libibverbs.so.1";
	hv_inside_enter();
	lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (lib == NULL) {
		const char *e = dlerror();

		hv_log(HV_LOG_INFO, "verbs library not loaded: %s", e != NULL ? e : path);
	} else {
		ok = resolve(lib, path);
		if (!ok)
			dlclose(lib);
	}
	hv_inside_leave();
	if (!ok)
		return false;
	/* Queues of the provider are pinned pages: on kernels that don't copy such pages at fork, the parent would write to a copy that the device
	 * never sees. Newer ones answer IBV_FORK_UNNEEDED. */
	if (hv_verbs.ibv_fork_init != NULL &&
	    (hv_verbs.ibv_is_fork_initialized == NULL || hv_verbs.ibv_is_fork_initialized() == IBV_FORK_DISABLED)) {
		hv_inside_enter();
		(void)hv_verbs.ibv_fork_init();
		hv_inside_leave();
	}
	return true;
}

enum hv_vf_why hv_verbs_load(int *errp)
{
	int saved = errno, me = hv_sys_getpid(), was = 0;
	enum hv_vf_why why = HV_VF_OK;

	if (__atomic_load_n(&state, __ATOMIC_ACQUIRE) == LOADED)
		return HV_VF_OK;
	while (!__atomic_compare_exchange_n(&loader, &was, me, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
		if (was == me) {
			*errp = EAGAIN;
			return HV_VF_OTHER;
		}
	}
	if (__atomic_load_n(&state, __ATOMIC_RELAXED) != LOADED) {
		if (load()) {
			__atomic_store_n(&state, LOADED, __ATOMIC_RELEASE);
		} else {
			*errp = ENOENT;
			why = HV_VF_NO_LIBRARY;
		}
	}
	__atomic_store_n(&loader, 0, __ATOMIC_RELEASE);
	errno = saved;
	return why;
}

/*
 * With RDMAV_ALLOW_DISASSOC_DESTROY, destroying objects of a device that was removed succeeds and frees their memory instead of leaking it. libibverbs
 * reads it once, in the first ibv_get_device_list(). The environment belongs to the program, so it is replaced by a longer copy for the duration of that
 * call: a getenv() in another thread sees one valid array or the other, which setenv() would not guarantee.
 */
static struct ibv_device **first_list(int *n)
{
	static char var[] = "RDMAV_ALLOW_DISASSOC_DESTROY=1";
	static char **copy; /* never freed: another thread may be walking it */
	char **old = environ;
	struct ibv_device **list;
	size_t len = 0;

	if (getenv("RDMAV_ALLOW_DISASSOC_DESTROY") != NULL)
		return hv_verbs.ibv_get_device_list(n);
	while (old != NULL && old[len] != NULL)
		len++;
	copy = malloc((len + 2) * sizeof *copy);
	if (copy == NULL)
		return hv_verbs.ibv_get_device_list(n);
	if (len != 0)
		memcpy(copy, old, len * sizeof *copy);
	copy[len] = var;
	copy[len + 1] = NULL;
	environ = copy;
	list = hv_verbs.ibv_get_device_list(n);
	if (environ == copy) {
		environ = old;
	} else { /* somebody has used setenv() meanwhile: take only ours out of what they made */
		int e = errno;

		unsetenv("RDMAV_ALLOW_DISASSOC_DESTROY");
		errno = e;
	}
	return list;
}

struct ibv_device **hv_verbs_devices(int *n, int *errp)
{
	static bool done;
	int saved = errno;
	struct ibv_device **list;

	*n = 0;
	hv_inside_enter();
	errno = 0;
	list = __atomic_exchange_n(&done, true, __ATOMIC_RELAXED) ? hv_verbs.ibv_get_device_list(n) : first_list(n);
	hv_inside_leave();
	if (list == NULL)
		*errp = errno != 0 ? errno : ENODEV;
	errno = saved;
	return list;
}

int hv_verbs_query_port(struct ibv_context *ctx, struct ibv_port_attr *attr)
{
	struct verbs_context *v = verbs_get_ctx_op(ctx, query_port);

	memset(attr, 0, sizeof *attr);
	if (v != NULL)
		return v->query_port(ctx, 1, attr, sizeof *attr);
	return hv_verbs.ibv_query_port(ctx, 1, (struct _compat_ibv_port_attr *)attr);
}

int hv_verbs_query_device(struct ibv_context *ctx, struct ibv_device_attr_ex *attr)
{
	struct verbs_context *v = verbs_get_ctx_op(ctx, query_device_ex);
	int r = EOPNOTSUPP;

	memset(attr, 0, sizeof *attr);
	if (v != NULL)
		r = v->query_device_ex(ctx, NULL, attr, sizeof *attr);
	if (r == EOPNOTSUPP || r == ENOSYS) {
		memset(attr, 0, sizeof *attr);
		r = hv_verbs.ibv_query_device(ctx, &attr->orig_attr);
	}
	return r < 0 ? -r : r;
}

/* Locked memory is refused with ENOMEM by uverbs, with ENOBUFS by AF_XDP below softvf. */
static bool memlock_limited(void)
{
	struct rlimit r;

	return getrlimit(RLIMIT_MEMLOCK, &r) == 0 && r.rlim_cur != RLIM_INFINITY;
}

enum hv_vf_why hv_verbs_why(int err, enum hv_vf_why step)
{
	switch (err) {
	case EPERM:
	case EACCES:
		return HV_VF_EPERM;
	case EBUSY:
		return HV_VF_BUSY;
	case ENOMEM:
	case ENOBUFS:
		return memlock_limited() ? HV_VF_MEMLOCK : HV_VF_NOMEM;
	case ENODEV:
	case ENXIO:
	case EIO: /* what every verb answers once the device is gone */
		return HV_VF_NO_DEVICE;
	case ENETDOWN:
		return HV_VF_NOT_RUNNING;
	default:
		return step;
	}
}

const char *hv_vf_why_text(enum hv_vf_why why)
{
	switch (why) {
	case HV_VF_OK:
		return "usable";
	case HV_VF_NO_LIBRARY:
		return "the verbs library cannot be loaded: install libibverbs1 and its provider, or set HVACCEL_VERBS";
	case HV_VF_NO_DEVICE:
		return "no RDMA device belongs to the network device: enable Accelerated Networking, load ib_uverbs and mlx5_ib or mlx4_ib";
	case HV_VF_NOT_RUNNING:
		return "the VF's network device is not up and running: see ip link";
	case HV_VF_PORT_DOWN:
		return "the RDMA port is not active: see rdma link";
	case HV_VF_EPERM:
		return "raw packet queues are refused: the program needs CAP_NET_RAW and access to /dev/infiniband";
	case HV_VF_MEMLOCK:
		return "memory cannot be locked: raise RLIMIT_MEMLOCK (ulimit -l) or lower HVACCEL_MEMORY_MB";
	case HV_VF_NO_RAW_QP:
		return "the device refuses raw packet queues: its driver or firmware has none";
	case HV_VF_NO_FLOW:
		return "the device refuses flow rules: its driver or firmware has no flow steering";
	case HV_VF_BUSY:
		return "the device's queue is in use by another process";
	case HV_VF_NOMEM:
		return "out of memory: raise HVACCEL_MEMORY_MB, or free some";
	case HV_VF_OTHER:
		break;
	}
	return "the device failed in an unexpected way: see HVACCEL_LOG=debug";
}
