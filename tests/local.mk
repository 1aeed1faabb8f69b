# Tests. Each topic brings a fragment tests/unit/<topic>.mk that adds programs to UNIT_TESTS; other kinds of test have folders of their own.
# ./check finds test scripts (tests/*/*.sh) by file name: they aren't part of `make check`.
include tests/unit/base.mk
include tests/unit/failover.mk
include tests/unit/stack.mk
include tests/sim/sim.mk
include tests/lab/local.mk
include tests/unit/vf.mk
include tests/unit/softvf.mk

EXTRA_DIST += tests/run tests/README.md tests/doc tests/lab tools/deps.sh .ci/run

# A file named like a make target can't be in EXTRA_DIST: make would run all tests to "make" it.
dist-hook:
	cp -p $(srcdir)/check $(distdir)/check
