# Unit tests of src/stack: packet in, packet out, virtual clock.
if HAVE_CMOCKA
UNIT_TESTS += stack_seq stack_trim stack_wire stack_udp stack_recv stack_send stack_loss stack_move
endif
EXTRA_PROGRAMS += stack_seq stack_trim stack_wire stack_udp stack_recv stack_send stack_loss stack_move
stack_rig = tests/unit/stack_rig.c tests/unit/stack_rig.h tests/sim/host.c tests/sim/host.h tests/sim/seg.c tests/sim/seg.h tests/sim/prng.h
stack_wire_SOURCES = tests/unit/stack_wire.c $(stack_rig)
stack_wire_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_wire_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_udp_SOURCES = tests/unit/stack_udp.c $(stack_rig)
stack_udp_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_udp_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_recv_SOURCES = tests/unit/stack_recv.c $(stack_rig)
stack_recv_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_recv_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_send_SOURCES = tests/unit/stack_send.c $(stack_rig)
stack_send_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_send_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_loss_SOURCES = tests/unit/stack_loss.c $(stack_rig)
stack_loss_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_loss_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_move_SOURCES = tests/unit/stack_move.c $(stack_rig)
stack_move_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_move_LDADD = libhvstack.la $(CMOCKA_LIBS)
# -O2: they go through everything there is
stack_seq_SOURCES = tests/unit/stack_seq.c
stack_seq_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) -O2
stack_seq_LDADD = $(CMOCKA_LIBS)
stack_trim_SOURCES = tests/unit/stack_trim.c $(stack_rig)
stack_trim_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) -O2
stack_trim_LDADD = libhvstack.la $(CMOCKA_LIBS)

# Congestion control by itself
if HAVE_CMOCKA
UNIT_TESTS += stack_cubic stack_ecn
endif
EXTRA_PROGRAMS += stack_cubic stack_ecn
stack_cubic_SOURCES = tests/unit/stack_cubic.c
stack_cubic_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_cubic_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_ecn_SOURCES = tests/unit/stack_ecn.c $(stack_rig)
stack_ecn_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_ecn_LDADD = libhvstack.la $(CMOCKA_LIBS)

# Attacks, each by its name
if HAVE_CMOCKA
UNIT_TESTS += stack_attack_blind stack_attack_peer stack_attack_recv stack_rfc9293
endif
EXTRA_PROGRAMS += stack_attack_blind stack_attack_peer stack_attack_recv stack_rfc9293
stack_attack_blind_SOURCES = tests/unit/stack_attack_blind.c tests/unit/stack_attack.h $(stack_rig)
stack_attack_blind_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_attack_blind_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_attack_peer_SOURCES = tests/unit/stack_attack_peer.c tests/unit/stack_attack.h $(stack_rig)
stack_attack_peer_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_attack_peer_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_attack_recv_SOURCES = tests/unit/stack_attack_recv.c tests/unit/stack_attack.h $(stack_rig)
stack_attack_recv_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_attack_recv_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_rfc9293_SOURCES = tests/unit/stack_rfc9293.c $(stack_rig)
stack_rfc9293_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_rfc9293_LDADD = libhvstack.la $(CMOCKA_LIBS)
