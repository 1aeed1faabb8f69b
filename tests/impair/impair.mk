# A bad network between the kernel's TCP and ours, in user space.
noinst_PROGRAMS += tests/impair/impaired
tests_impair_impaired_SOURCES = tests/impair/impaired.c tests/impair/end_kernel.c tests/impair/end_stack.c tests/impair/relay.c tests/impair/stall.c \
	tests/impair/end.h tests/impair/relay.h tests/impair/stall.h tests/sim/host.c tests/sim/seg.c tests/sim/pcap.c tests/sim/host.h tests/sim/seg.h tests/sim/pcap.h
tests_impair_impaired_CFLAGS = $(AM_CFLAGS) -pthread
tests_impair_impaired_LDFLAGS = -pthread
tests_impair_impaired_LDADD = libhvstack.la
noinst_PROGRAMS += tests/impair/impair-relay
tests_impair_impair_relay_SOURCES = tests/impair/relay_main.c tests/impair/relay.c tests/impair/stall.c tests/impair/relay.h \
	tests/impair/stall.h tests/sim/pcap.c tests/sim/pcap.h
UNIT_TESTS += impair_stall
impair_stall_SOURCES = tests/unit/impair_stall.c tests/impair/stall.c tests/impair/stall.h
impair_stall_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
impair_stall_LDADD = $(CMOCKA_LIBS)
