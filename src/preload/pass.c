/*
 * pass.c - descriptors that travel in control messages (pass.h). They only do over AF_UNIX, so these are calls on descriptors that we don't follow.
 */
#include "preload/pass.h"

#include <string.h>

#include "preload/io.h"

void hv_pass_fd(int fd, int why)
{
	struct hv_file *f = hv_file_at(fd);

	if (f == NULL)
		return;
	if (f->kind == HV_KIND_SOCK)
		hv_keep_in_kernel(f->s, (enum hv_why)why);
	hv_file_put(f);
}

static void each(const struct msghdr *msg, bool sending)
{
	/* By hand: CMSG_NXTHDR() of a const message, and nothing is trusted that the kernel hasn't looked at yet. */
	const unsigned char *p = msg->msg_control, *end = p + msg->msg_controllen;
	struct cmsghdr h;

	while ((size_t)(end - p) >= sizeof h) {
		memcpy(&h, p, sizeof h);
		if (h.cmsg_len < sizeof h || h.cmsg_len > (size_t)(end - p))
			return;
		if (h.cmsg_level == SOL_SOCKET && h.cmsg_type == SCM_RIGHTS) {
			for (const unsigned char *q = p + CMSG_LEN(0); q + sizeof(int) <= p + h.cmsg_len; q += sizeof(int)) {
				int fd;
				memcpy(&fd, q, sizeof fd);
				if (sending)
					hv_pass_fd(fd, HV_WHY_PASSED);
				else
					hv_tab_forget(fd);
			}
		}
		size_t step = CMSG_ALIGN(h.cmsg_len);
		if (step > (size_t)(end - p))
			return;
		p += step;
	}
}

void hv_pass_sending(const struct msghdr *msg)
{
	if (hv_bad(msg, sizeof *msg, HV_TRY_ALL) || msg->msg_control == NULL || msg->msg_controllen < CMSG_LEN(sizeof(int)))
		return;
	if (hv_bad(msg->msg_control, msg->msg_controllen, HV_TRY_ALL))
		return;
	each(msg, true);
}

void hv_pass_received(struct msghdr *msg)
{
	if (msg->msg_control != NULL)
		each(msg, false);
}
