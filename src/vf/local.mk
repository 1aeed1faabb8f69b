noinst_LTLIBRARIES += libhvvf.la
libhvvf_la_SOURCES = src/vf/vf.h src/vf/internal.h src/vf/verbs.h src/vf/discover.h \
	src/vf/verbs.c src/vf/discover.c src/vf/links.c src/vf/rdma.c src/vf/plan.c src/vf/open.c src/vf/ring.c src/vf/txsum.c src/vf/flow.c src/vf/event.c
