# Tests. Each topic brings a fragment tests/unit/<topic>.mk that adds programs to UNIT_TESTS; other kinds of test have folders of their own.
# ./check finds lab tests (tests/lab/*.sh) by file name: they need root and aren't part of `make check`.
include tests/unit/base.mk
