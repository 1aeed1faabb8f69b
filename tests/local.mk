# Tests. Each topic brings a fragment tests/unit/<topic>.mk that adds programs to UNIT_TESTS; other kinds of test have folders of their own.
# ./check finds test scripts (tests/*/*.sh) by file name: they aren't part of `make check`.
include tests/unit/base.mk
include tests/unit/failover.mk
include tests/unit/capture.mk
include tests/unit/stack.mk
include tests/unit/stack_rfc.mk
include tests/sim/sim.mk
include tests/impair/impair.mk
include tests/script/script.mk
include tests/lab/local.mk
include tests/tsan/tsan.mk
include tests/unit/engine.mk
include tests/unit/vf.mk
include tests/unit/softvf.mk
include tests/unit/preload.mk

EXTRA_DIST += tests/run tests/README.md tests/rfc9293.md tests/mutation/mutate.py tools/deps.sh .ci/run

# Scripts are found by name, here too: whole folders in EXTRA_DIST would bring what was built in them along. And a file named like a make target (check)
# can't be there at all: make would run all tests to "make" it.
dist-hook:
	cp -p $(srcdir)/check $(distdir)/check
	for d in doc lab script tsan; do $(MKDIR_P) $(distdir)/tests/$$d && cp -p $(srcdir)/tests/$$d/*.sh $(distdir)/tests/$$d/ || exit 1; done
	cp -p $(srcdir)/tests/lab/*.py $(distdir)/tests/lab/
	$(MKDIR_P) $(distdir)/tests/script/tcp && cp -p $(srcdir)/tests/script/tcp/*.pkt $(distdir)/tests/script/tcp/
