/*
 * vf_ring_loss.c - the ring when things go wrong: the VF is taken away and comes back, opening is refused, the process forks. Part of vf_ring.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/sys.h"
#include "vf_ring.h"

static unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	CHECK(d != NULL);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

static void wait_fatal(struct ring *r)
{
	struct hv_vf_async ev;
	bool fatal = false;

	while (!fatal) {
		CHECK(readable(hv_vf_async_fd(r->vf), WAIT_MS));
		while (hv_vf_async_next(r->vf, &ev)) {
			CHECK(ev.text != NULL && !ev.qp_fatal);
			fatal |= ev.fatal;
		}
	}
	CHECK(!hv_vf_async_next(r->vf, &ev));
}

static void lost_once(const char *how)
{
	struct hv_tuple t = tuple(4, 17, 4100, 5100), u = tuple(4, 6, 4101, 5101);
	struct hv_vf_limits lim = test_limits();
	uint8_t out[64] = { 0 };
	struct hv_vf_pair gone;
	struct hv_vf_cqe c[16];
	struct hv_vf_flow *f, *g;
	struct hv_tx tx;
	struct ring r;
	int err = 0, old;

	ring_open(&r, &lim);
	CHECK(ring_flow(r.vf, &t, &f, &err) == HV_VF_OK && ring_flow(r.vf, &u, &g, &err) == HV_VF_OK);
	old = r.pair.lower;
	CHECK(hv_vf_arm(r.vf) == 0);
	lab(how);
	wait_fatal(&r);
	/* everything still answers: nothing blocks, nothing crashes, nothing is sent */
	headers(&tx, &t, sizeof out, 0, 0, 0);
	payload_copy(&tx, out, sizeof out);
	for (unsigned i = 0; i < 2 * r.vf->sq; i++)
		(void)hv_vf_tx(r.vf, &r.env, &tx, hv_now_ns());
	hv_vf_poll_tx(r.vf, &r.env);
	for (unsigned i = 0; i < 100; i++) {
		CHECK(hv_vf_poll_rx(r.vf, c, 16, 1) == 0); /* flushed buffers aren't frames */
		hv_vf_refill(r.vf, &r.env);
		(void)hv_vf_arm(r.vf);
		hv_vf_channel_ack(r.vf);
	}
	CHECK(r.env.n_free_rx + r.vf->rq_posted == r.env.rx_total); /* no buffer is lost */
	CHECK(hv_vf_discover(upper_index(), &gone) == HV_VF_NO_DEVICE);
	CHECK(ring_flow(r.vf, &u, &g, &err) == HV_VF_NO_DEVICE && err == EIO && g == NULL);
	hv_vf_flow_del(r.vf, f); /* the other one is left to close */
	ring_close(&r, true);
	CHECK(hv_vf_open(&r.vf, &r.pair, &lim, &err) == HV_VF_NO_DEVICE && r.vf == NULL);
	lab("vf-add");
	ring_open(&r, &lim);
	CHECK(r.pair.lower != old);
	CHECK(ring_flow(r.vf, &t, &f, &err) == HV_VF_OK);
	int peer = peer_socket(SOCK_DGRAM, 5100);
	ring_send(&r, &tx);
	CHECK(readable(peer, WAIT_MS));
	ring_drain(&r);
	close(peer);
	ring_close(&r, false);
}

void case_loss(void)
{
	unsigned before;

	lost_once("vf-remove");
	before = count_fds();
	lost_once("vf-remove --surprise 20");
	lost_once("vf-remove");
	CHECK(count_fds() == before);
	printf("ok: loss and return\n");
}

/* ---- fork ---- */
void case_fork(void)
{
	struct hv_tuple t = tuple(4, 17, 4110, 5110);
	struct hv_vf_limits lim = test_limits();
	struct hv_vf_flow *f;
	struct hv_tx tx;
	uint8_t out[600];
	struct ring r;
	int peer = peer_socket(SOCK_DGRAM, 5110), err = 0, st;
	pid_t pid;

	ring_open(&r, &lim);
	CHECK(ring_flow(r.vf, &t, &f, &err) == HV_VF_OK);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		int fd = hv_vf_channel_fd(r.vf), async = hv_vf_async_fd(r.vf);
		unsigned char vec;
		void *mem = r.vf->mem;

		hv_vf_child_forget(r.vf);
		_exit(fcntl(fd, F_GETFD) == -1 && fcntl(async, F_GETFD) == -1 && mincore(mem, 4096, &vec) != 0 ? 0 : 1);
	}
	CHECK(waitpid(pid, &st, 0) == pid && WIFEXITED(st) && WEXITSTATUS(st) == 0);
	pattern(out, sizeof out, 3);
	headers(&tx, &t, sizeof out, 0, 0, 0);
	payload_copy(&tx, out, sizeof out);
	ring_send(&r, &tx);
	CHECK(readable(peer, WAIT_MS));
	ring_drain(&r);
	ring_close(&r, false);
	close(peer);
	printf("ok: fork\n");
}

/* A server that daemonizes: the parent's ring goes with the parent, and the child opens one of its own. */
int case_daemon(void)
{
	struct hv_vf_limits lim = test_limits();
	struct ring r;
	int st, go[2];
	pid_t pid;

	ring_open(&r, &lim);
	fflush(stdout);
	CHECK(pipe(go) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		char c;

		hv_vf_child_forget(r.vf);
		close(go[1]);
		if (read(go[0], &c, 1) != 1)
			_exit(2);
		ring_open(&r, &lim);
		ring_close(&r, false);
		_exit(0);
	}
	ring_close(&r, false);
	CHECK(write(go[1], "g", 1) == 1);
	CHECK(waitpid(pid, &st, 0) == pid && WIFEXITED(st) && WEXITSTATUS(st) == 0);
	close(go[0]);
	close(go[1]);
	printf("ok: daemon\n");
	return 0;
}

/* The link goes down and up again: the device stays, and says so. */
void case_port(void)
{
	struct hv_tuple t = tuple(4, 17, 4120, 5120);
	struct hv_vf_limits lim = test_limits();
	struct hv_vf_async ev;
	struct hv_vf_flow *f;
	uint8_t out[100] = { 0 };
	struct hv_tx tx;
	struct ring r;
	int peer = peer_socket(SOCK_DGRAM, 5120), err = 0;

	ring_open(&r, &lim);
	CHECK(ring_flow(r.vf, &t, &f, &err) == HV_VF_OK);
	CHECK(!hv_vf_async_next(r.vf, &ev) && !readable(hv_vf_async_fd(r.vf), 0));
	for (unsigned i = 0; i < 2; i++) {
		fflush(stdout);
		CHECK(system("ip link set vf0 down") == 0);
		CHECK(readable(hv_vf_async_fd(r.vf), WAIT_MS));
		CHECK(hv_vf_async_next(r.vf, &ev) && ev.port_down && !ev.fatal && !ev.port_up);
		CHECK(system("ip link set vf0 up") == 0);
		CHECK(readable(hv_vf_async_fd(r.vf), WAIT_MS));
		CHECK(hv_vf_async_next(r.vf, &ev) && ev.port_up && !ev.fatal && !ev.port_down);
	}
	headers(&tx, &t, sizeof out, 0, 0, 0);
	payload_copy(&tx, out, sizeof out);
	ring_send(&r, &tx);
	ring_drain(&r);
	CHECK(readable(peer, WAIT_MS));
	ring_close(&r, false);
	close(peer);
	printf("ok: port down and up\n");
}

/* ---- reasons ---- */
static void drop(int cap)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2];

	CHECK(syscall(SYS_capget, &h, d) == 0);
	d[cap >> 5].effective &= ~(1u << (cap & 31));
	d[cap >> 5].permitted &= ~(1u << (cap & 31));
	d[cap >> 5].inheritable &= ~(1u << (cap & 31));
	CHECK(syscall(SYS_capset, &h, d) == 0);
}

static int open_once(const struct hv_vf_limits *lim, int *err)
{
	struct hv_vf_pair p;
	struct hv_vf *vf = NULL;
	unsigned before = count_fds();
	enum hv_vf_why why = hv_vf_discover(upper_index(), &p);

	*err = 0;
	if (why == HV_VF_OK)
		why = hv_vf_open(&vf, &p, lim, err);
	if (why == HV_VF_OK)
		hv_vf_close(vf, false);
	else if (vf != NULL || count_fds() != before)
		return -1; /* something was left behind */
	return (int)why;
}

int reason(const char *what)
{
	struct hv_vf_limits lim = test_limits();
	struct rlimit r = { 1 << 20, 1 << 20 };
	enum hv_vf_why want = HV_VF_OK;
	int err, why;

	if (strcmp(what, "library") == 0) {
		want = HV_VF_NO_LIBRARY;
	} else if (strcmp(what, "busy") == 0) {
		want = HV_VF_BUSY;
	} else if (strcmp(what, "raw") == 0) {
		want = HV_VF_EPERM;
		drop(CAP_NET_RAW);
	} else if (strcmp(what, "memlock") == 0) {
		want = HV_VF_MEMLOCK;
		drop(CAP_IPC_LOCK);
		CHECK(setrlimit(RLIMIT_MEMLOCK, &r) == 0);
	} else if (strcmp(what, "shrink") == 0) { /* less is locked than wished for */
		drop(CAP_IPC_LOCK);
		r.rlim_cur = r.rlim_max = 12 << 20;
		if (setrlimit(RLIMIT_MEMLOCK, &r) != 0) { /* not above the hard limit; softvf's own queues take 8 MiB */
			r.rlim_cur = r.rlim_max = 8 << 20;
			if (setrlimit(RLIMIT_MEMLOCK, &r) != 0) {
				printf("shrink: left out, the hard limit of locked memory is below 8 MiB here\n");
				return 0;
			}
		}
		lim.mem_bytes = 16 << 20;
	} else if (strcmp(what, "memory") == 0) {
		want = HV_VF_NOMEM;
		lim.mem_bytes = 64 << 10;
	}
	why = open_once(&lim, &err);
	printf("%s: %s (errno %d)\n", what, why < 0 ? "something was left behind" : hv_vf_why_text((enum hv_vf_why)why), err);
	return why == (int)want ? 0 : 1;
}

static void child(const char *self, const char *what, const char *verbs)
{
	int st;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		if (verbs != NULL)
			setenv("HVACCEL_VERBS", verbs, 1);
		execl(self, self, "reason", what, (char *)NULL);
		_exit(127);
	}
	CHECK(waitpid(pid, &st, 0) == pid && WIFEXITED(st));
	CHECK(WEXITSTATUS(st) == 0);
}

void case_reasons(const char *self)
{
	struct hv_vf_limits lim = test_limits();
	struct ring r;

	child(self, "none", NULL);
	child(self, "library", "/nonexistent/libibverbs.so.1");
	child(self, "library", "libm.so.6"); /* loads, but isn't one */
	child(self, "raw", NULL);
	child(self, "memlock", NULL);
	child(self, "shrink", NULL);
	child(self, "memory", NULL);
	ring_open(&r, &lim);
	child(self, "busy", NULL);
	ring_close(&r, false);
	child(self, "none", NULL);
	printf("ok: reasons\n");
}
