noinst_LTLIBRARIES += libhvstack.la
# Fields written one by one would be read as one word: that can't be forwarded from the store buffer, and costs more than it saves.
libhvstack_la_CFLAGS = $(AM_CFLAGS) -fno-tree-slp-vectorize
libhvstack_la_SOURCES = src/stack/tcp.h src/stack/udp.h src/stack/frame.h src/stack/image.h src/stack/frame_l3.h src/stack/seq.h src/stack/wire.h \
	src/stack/opt.h src/stack/tcb.h src/stack/cc.h src/stack/csum.c src/stack/frame.c src/stack/udp.c src/stack/opt.c src/stack/input.c \
	src/stack/ack.c src/stack/rcvq.c src/stack/sndq.c src/stack/output.c src/stack/sack.c src/stack/recovery.c src/stack/undo.c src/stack/cubic.c src/stack/hystart.c \
	src/stack/reno.c src/stack/rtt.c src/stack/timer.c src/stack/pmtu.c src/stack/autotune.c src/stack/state.c src/stack/check.c
