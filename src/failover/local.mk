noinst_LTLIBRARIES += libhvfail.la
libhvfail_la_SOURCES = src/failover/capture.c src/failover/capture.h src/failover/demote.c src/failover/guard.c src/failover/handoff.h \
	src/failover/hold.c src/failover/inject.c src/failover/internal.h src/failover/monitor.c src/failover/monitor.h src/failover/promote.c \
	src/failover/rehash.c src/failover/route.c src/failover/route.h src/failover/setup.c
# Headers only: libnl-3 is loaded when a VF is opened.
libhvfail_la_CPPFLAGS = $(AM_CPPFLAGS) $(NL_CFLAGS)
