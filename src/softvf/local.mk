# softvf: a drop-in libibverbs.so.1 that makes netdevs raw-packet verbs devices. Tests and the lab load it instead of the real one.
softvfdir = $(pkglibdir)/softvf
softvf_LTLIBRARIES = src/softvf/libibverbs.la
src_softvf_libibverbs_la_SOURCES = \
	src/softvf/sv_csum.c src/softvf/sv_csum.h src/softvf/sv_steer.h src/softvf/sv_steer.lskel.h src/softvf/bpf/skel_internal.h src/softvf/sv_stubs.c src/softvf/sv_stubs.def \
	src/softvf/sv_verbs.h src/softvf/sv_verbs_cq.c src/softvf/sv_verbs_recv.c src/softvf/sv_verbs_send.c src/softvf/sv_verbs_dev.c src/softvf/sv_verbs_flow.c \
	src/softvf/sv_verbs_mem.c src/softvf/sv_verbs_misc.c src/softvf/sv_verbs_qp.c src/softvf/sv_wire.h src/softvf/sv_wire_link.c \
	src/softvf/sv_wire_steer.c src/softvf/sv_wire_tso.c src/softvf/sv_wire_xsk.c
src_softvf_libibverbs_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/src/softvf
src_softvf_libibverbs_la_CFLAGS = $(AM_CFLAGS) -pthread
src_softvf_libibverbs_la_LDFLAGS = -version-info 1:0:0 -Wl,--version-script=$(top_srcdir)/src/softvf/libibverbs.map -Wl,-z,nodelete -pthread
EXTRA_src_softvf_libibverbs_la_DEPENDENCIES = $(top_srcdir)/src/softvf/libibverbs.map
EXTRA_DIST += src/softvf/libibverbs.map src/softvf/sv_steer.bpf.c

# The XDP program's light skeleton is in the tree; this makes it anew (clang, bpftool 7.1, libbpf-dev).
.PHONY: steer-skeleton
steer-skeleton:
	$(CLANG) -O2 -g -Wall -target bpf -I/usr/include/$(host_cpu)-linux-gnu -I$(top_srcdir)/src/softvf -c $(top_srcdir)/src/softvf/sv_steer.bpf.c -o sv_steer.bpf.o
	$(BPFTOOL) gen skeleton -L sv_steer.bpf.o name sv_skel > $(top_srcdir)/src/softvf/sv_steer.lskel.h
	rm -f sv_steer.bpf.o
