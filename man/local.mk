# libhvaccel(7) has the table of tunables in its ENVIRONMENT section: written by confdoc from src/base/tunables.def, so that it can't fall behind the code.
nodist_man_MANS += man/libhvaccel.7
dist_man_MANS += man/hvaccel-lab.8
EXTRA_DIST += man/libhvaccel.7.in
CLEANFILES += man/libhvaccel.7

man/libhvaccel.7: $(top_srcdir)/man/libhvaccel.7.in confdoc$(EXEEXT)
	$(AM_V_GEN)$(MKDIR_P) man && ./confdoc$(EXEEXT) >$@.env && \
	$(SED) -e '/^@ENVIRONMENT@$$/{' -e 'r $@.env' -e 'd' -e '}' -e 's/@VERSION@/$(PACKAGE_VERSION)/' $(top_srcdir)/man/libhvaccel.7.in >$@.tmp && \
	rm -f $@.env && mv $@.tmp $@
