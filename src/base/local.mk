noinst_LTLIBRARIES += libhvbase.la
libhvbase_la_SOURCES = src/base/conf.c src/base/confhelp.c src/base/conf.h src/base/inside.c src/base/inside.h src/base/log.c src/base/log.h src/base/pkt.h src/base/sys.h src/base/tunables.def

noinst_PROGRAMS += confdoc
confdoc_SOURCES = src/base/confdoc.c
confdoc_LDADD = libhvbase.la
