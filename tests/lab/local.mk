# The socket tests' programs: the other end, and what runs against it with and without the library. Started by posix_*.sh.
check_PROGRAMS += tests/lab/peer tests/lab/waits tests/lab/calls tests/lab/storm
tests_lab_peer_SOURCES = tests/lab/peer.c tests/lab/peer.h
tests_lab_waits_SOURCES = tests/lab/drive.c tests/lab/drive.h tests/lab/peer.h tests/lab/waits.c tests/lab/waits.h tests/lab/waits_call.c \
	tests/lab/waits_ready.c tests/lab/waits_more.c
tests_lab_waits_LDFLAGS = -pthread
tests_lab_calls_SOURCES = tests/lab/drive.c tests/lab/drive.h tests/lab/peer.h tests/lab/calls.c tests/lab/calls.h tests/lab/calls_data.c \
	tests/lab/calls_fd.c tests/lab/calls_opt.c tests/lab/calls_udp.c tests/lab/calls_udp_more.c tests/lab/calls_tcp_opt.c tests/lab/calls_fork.c \
	tests/lab/calls_epoll.c tests/lab/calls_life.c
tests_lab_calls_LDFLAGS = -pthread
tests_lab_storm_SOURCES = tests/lab/storm.c
tests_lab_storm_LDFLAGS = -pthread
