UNIT_TESTS += failover_hold
failover_hold_SOURCES = tests/unit/failover_hold.c
failover_hold_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
failover_hold_LDADD = libhvfail.la libhvbase.la $(CMOCKA_LIBS)

# These need root and namespaces of their own: tests/lab/handoff_move.sh and handoff_watch.sh run them.
check_PROGRAMS += tests/lab/handoff_move tests/lab/handoff_watch
tests_lab_handoff_move_SOURCES = tests/lab/handoff_cases.c tests/lab/handoff_move.c tests/lab/handoff_owner.c tests/lab/handoff_owner.h \
	tests/lab/handoff_test.h
tests_lab_handoff_move_LDADD = libhvfail.la libhvbase.la
tests_lab_handoff_move_LDFLAGS = -pthread
tests_lab_handoff_watch_SOURCES = tests/lab/handoff_watch.c
tests_lab_handoff_watch_LDADD = libhvfail.la libhvbase.la
EXTRA_DIST += tests/lab/handoff_move.sh tests/lab/handoff_watch.sh
