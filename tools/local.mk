# hvaccel-lab: the test network. Its helper is private to it, hence libexec.
pkglibexec_PROGRAMS = tools/hvaccel-lab-dp
tools_hvaccel_lab_dp_SOURCES = tools/lab/labdp.c tools/lab/labdp.h tools/lab/labdp.insns.h
bin_SCRIPTS = tools/hvaccel-lab
EXTRA_DIST += tools/hvaccel-lab.in tools/lab/labdp.bpf.c tools/lab/insns.py
CLEANFILES += tools/hvaccel-lab

tools/hvaccel-lab: tools/hvaccel-lab.in Makefile
	$(AM_V_GEN)$(MKDIR_P) tools && $(SED) -e 's|@pkglibexecdir[@]|$(pkglibexecdir)|' -e 's|@pkglibdir[@]|$(pkglibdir)|' \
		$(srcdir)/tools/hvaccel-lab.in >$@.tmp && chmod +x $@.tmp && mv -f $@.tmp $@

# After a change of labdp.bpf.c: its instructions are in the tree, so that building needs no BPF compiler.
.PHONY: labdp-regen
labdp-regen:
	$(CLANG) -O2 -target bpf -mcpu=v2 -Wall -Wextra -I/usr/include/$(host_cpu)-linux-gnu -c $(srcdir)/tools/lab/labdp.bpf.c -o labdp.bpf.o
	$(srcdir)/tools/lab/insns.py labdp.bpf.o >$(srcdir)/tools/lab/labdp.insns.h
	rm -f labdp.bpf.o
