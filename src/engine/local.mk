noinst_LTLIBRARIES += libhvengine.la
libhvengine_la_SOURCES = src/engine/engine.h src/engine/internal.h src/engine/why.def src/engine/lock.h \
	src/engine/sock.c src/engine/promote.c src/engine/demote.c src/engine/ring.c src/engine/timer.c \
	src/engine/tcp.c src/engine/opt.c src/engine/tcpinfo.c src/engine/udp.c src/engine/udptx.c src/engine/wait.c src/engine/epoll.c src/engine/service.c \
	src/engine/life.c src/engine/fork.c src/engine/stats.c src/engine/mem.c src/engine/exception.c src/engine/path.c src/engine/relief.c
