noinst_LTLIBRARIES += libhvfail.la
libhvfail_la_SOURCES = src/failover/demote.c src/failover/guard.c src/failover/handoff.h src/failover/inject.c src/failover/internal.h \
	src/failover/promote.c src/failover/rehash.c src/failover/route.c src/failover/route.h src/failover/setup.c
