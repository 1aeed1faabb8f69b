# The library that is preloaded. Exactly the names of symbols.def are exported, without versions: they stand in front of every version of libc's.
lib_LTLIBRARIES += libhvaccel.la
libhvaccel_la_SOURCES = src/preload/enter.h src/preload/epoll.c src/preload/fault.c src/preload/fault.h src/preload/fdtab.c src/preload/fdtab.h src/preload/io.h src/preload/lifecycle.c \
	src/preload/opts.c src/preload/pass.c src/preload/pass.h src/preload/priv.c src/preload/proc.c src/preload/proc.h src/preload/real.c src/preload/real.h src/preload/recv.c \
	src/preload/send.c src/preload/sig.c src/preload/start.c src/preload/symbols.def src/preload/syscall.c src/preload/wait.c
# Fortified headers would replace the very functions that are defined here. Lazy binding could run the linker on a handler's small stack.
libhvaccel_la_CFLAGS = $(AM_CFLAGS) -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=0 -fno-builtin -ftls-model=initial-exec -fvisibility=hidden
libhvaccel_la_LIBADD = libhvengine.la libhvfail.la libhvvf.la libhvstack.la libhvbase.la
libhvaccel_la_LDFLAGS = -module -avoid-version -shared -Wl,-z,now -Wl,-z,nodelete -Wl,-z,defs -Wl,-Bsymbolic-functions -Wl,--version-script=libhvaccel.map
EXTRA_libhvaccel_la_DEPENDENCIES = libhvaccel.map

libhvaccel.map: $(top_srcdir)/src/preload/symbols.def
	$(AM_V_GEN)(echo '{ global:' && $(SED) -n 's/^HV_[A-Z]*(\([A-Za-z0-9_]*\).*/	\1;/p' $(top_srcdir)/src/preload/symbols.def && echo 'local: *; };') > $@.tmp && mv $@.tmp $@
CLEANFILES += libhvaccel.map libhvaccel.map.tmp
