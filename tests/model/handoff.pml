/*
 * handoff.pml - the hand-off of a TCP connection between the kernel socket and the VF tier, as src/failover does it.
 *
 * Peer, network, NIC, kernel softirq, kernel sender, userspace stack, the program's threads, the threads that move the connection, and the
 * loss of the VF at any moment all run freely against each other. The peer sends N octets and a FIN and retransmits as long as it likes;
 * our program sends M octets and then shuts its side down. A segment may be lost anywhere.
 *
 * Threads: each call of the program first finds out where the connection is (hv_kernel_enter(): announce, then look). A call that found it
 * in the kernel may sleep before it gets there. Whoever moves the connection first says so, then looks for announced calls. Promotion runs
 * without the lock (the tier word keeps others away), settle and demotion under it; any thread may do any of them at any time.
 *
 * Asserted: no RST; only the owner acks (a late accept before settle is the one exception); no octet that was acked is forgotten, none
 * is delivered twice or out of order; an acked FIN reaches the program; the parked socket sends nothing once settle is done; no FIN of ours
 * is sent by, or lost in, a parked socket.
 *
 * Wrong orders, each has to give a counterexample (run.sh checks that):
 *   NOLATE       settle doesn't look at what the kernel accepted after the freeze
 *   NOBARRIER    it looks, but without waiting for the softirq that had passed the filter already
 *   NOGUARD      nothing catches packets while the socket is unhashed
 *   EARLYFILTER  demote removes the filter before the kernel socket knows the new numbers
 *   NOPURGE      octets stay in the parked socket's send queue
 *   FINASDATA    a FIN that the kernel accepted late is not given back to it
 *   NOFILTER     promote without the filter (steering alone)
 *   EAGER        promote disconnects at once instead of parking the socket as it is
 *   NOWAITFIN    the next promotion may begin while the injected FIN is still on its way
 *   NORCV        demote forgets the unread octets
 *   UNFROZEN     demote reads the numbers before the userspace stack is stopped
 *   NOINFLIGHT   promote doesn't look whether a thread is inside a kernel call
 *   LOOKFIRST    a thread looks where the connection is before it announces its call
 *   NOCAS        two threads may begin a promotion at once
 *   NOLOCK       one thread settles while another demotes
 *   NOTMOVING    a demotion doesn't wait for the end of a promotion that has begun
 *   PINFIRST     promote looks before it says so whether somebody wants the connection to stay in the kernel (for a FIN)
 */
#ifndef N
#define N 2             /* octets from the peer; number N is its FIN */
#endif
#ifndef M
#define M 1             /* octets from us */
#endif
#ifndef MOVES
#define MOVES 2
#endif
#ifndef THREADS
#define THREADS 1       /* of the program */
#endif
#ifndef MOVERS
#define MOVERS 1
#endif

#define KERNEL 0
#define USER 1
#define NONE 2          /* owner: the userspace stack is stopped; tier: on the move */
#define MOVING 2

mtype = { DATA, ACK };


chan kq = [1] of { mtype, byte };    /* kernel's receive ring, also what is injected */
chan uq = [1] of { mtype, byte };    /* VF's receive ring */

bool vf = true, steer, filter, guard, hashed = true, settled = true;
byte owner = KERNEL;                 /* who may process segments */
byte tier = KERNEL;                  /* what the program's threads go by */
byte inflight;                       /* their calls in the kernel */
bool lock, pinned;
byte moves = MOVES;

/* Kernel socket: read position, rcv_nxt, snd_una, snd_nxt, end of the send queue. */
byte k_rd, k_nxt, k_una, k_snd, k_end;
bool k_fin;
/* Segment between the socket filter and the receive path proper: it has passed and will be processed whatever we do. */
bool kp;
mtype kp_m;
byte kp_v;
/* Userspace stack. */
byte u_rd, u_nxt, u_una, u_snd, u_end;
bool u_fin;                          /* an in-order FIN is held, not consumed */

byte app_nxt, app_end;               /* octets that the program has read and written */
byte p_una, p_nxt;                   /* peer */
byte acked;                          /* highest ACK sent by anybody */
byte d_rd, d_nxt, d_una, d_snd, d_end;
bool d_fin;

inline reply(a) {
	if
	:: a > acked -> acked = a
	:: else
	fi
}

/* One of our segments: it arrives, or is lost and sent again later. */
inline transmit(s) {
	assert(s < app_end);
	if
	:: s == p_nxt -> p_nxt++
	:: skip
	fi
}

/*
 * The peer and the network. A segment is put where the NIC steers it, or is lost. ACKs are cumulative, so a delayed or lost ACK of
 * ours is the same as the peer learning of it at any later time.
 */
#define RING(m, v) if :: steer && nfull(uq) -> uq!m(v) :: !steer && nfull(kq) -> kq!m(v) fi

active proctype Peer()
{
end:	do
	:: atomic { p_una <= N && (steer -> len(uq) : len(kq)) == 0 -> RING(DATA, p_una) }
	:: atomic { p_una < N && (steer -> len(uq) : len(kq)) == 0 -> RING(DATA, p_una + 1) }
	:: atomic { p_nxt > 0 && (steer -> len(uq) : len(kq)) == 0 -> RING(ACK, p_nxt) }
	:: p_una < acked -> p_una = acked
	od
}

active proctype Softirq()
{
	mtype m;
	byte v;

end:	do
	:: atomic { !kp && kq?[m, v] -> kq?m(v);
		if
		:: !hashed -> assert(guard)       /* no socket and no guard: the kernel answers with a RST */
		:: hashed && filter -> skip
		:: hashed && !filter -> kp = true; kp_m = m; kp_v = v
		fi;
		m = 0; v = 0 }
	:: atomic { kp -> kp = false;
		if
		:: !hashed -> skip                /* TCP_CLOSE: discarded in silence */
		:: hashed && kp_m == ACK ->
			if
			:: kp_v > k_una && kp_v <= k_end -> k_una = kp_v;
				if
				:: k_snd < k_una -> k_snd = k_una
				:: else
				fi
			:: else
			fi
		:: hashed && kp_m == DATA ->
			assert(owner == KERNEL || !settled);
			if
			:: kp_v == k_nxt && kp_v < N -> k_nxt++
			:: kp_v == k_nxt && kp_v == N && !k_fin -> k_nxt++; k_fin = true
			:: else
			fi;
			reply(k_nxt)
		fi;
		kp_v = 0; kp_m = 0 }
	od
}

/* The kernel's transmit side: new octets and retransmission timer, which repair mode does not stop. */
active proctype Ksend()
{
end:	do
	:: atomic { hashed && k_snd < k_end -> assert(owner != USER || !settled); transmit(k_snd); k_snd++ }
	:: atomic { hashed && k_una < k_snd -> assert(owner != USER || !settled); transmit(k_una) }
	od
}

active proctype User()
{
	mtype m;
	byte v;

end:	do
	:: atomic { owner == USER && !u_fin && uq?[m, v] -> uq?m(v);
		assert(!settled || u_nxt >= acked);
		if
		:: m == ACK && v > u_una && v <= u_end -> u_una = v;
			if
			:: u_snd < u_una -> u_snd = u_una
			:: else
			fi
		:: m == DATA && v == u_nxt && v == N -> u_fin = true
		:: m == DATA && v == u_nxt && v < N -> u_nxt++; reply(u_nxt)
		:: m == DATA && v != u_nxt -> reply(u_nxt)
		:: else
		fi;
		m = 0; v = 0 }
	:: atomic { owner == USER && u_snd < u_end -> transmit(u_snd); u_snd++ }
	:: atomic { owner == USER && u_una < u_snd -> transmit(u_una) }
	od
}

#define WORK ((k_rd < k_nxt && k_rd < N) || app_end < M)

inline recv_or_send() {
	atomic {
		assert(owner == KERNEL);             /* never on a parked socket: octets could come out of turn, or stay there */
		if
		:: k_rd < k_nxt && k_rd < N -> assert(k_rd == app_nxt); k_rd++; app_nxt++
		:: app_end < M -> assert(k_end == app_end); k_end++; app_end++
		:: else
		fi }
}

active [THREADS] proctype Thread()
{
end:	do
#ifdef LOOKFIRST
	:: tier == KERNEL && WORK -> inflight++; recv_or_send(); inflight--
#else
	:: atomic { WORK -> inflight++ };
		if
		:: tier == KERNEL -> recv_or_send()
		:: else
		fi;
		inflight--
#endif
	:: atomic { tier == USER && owner == USER && !lock && u_rd < u_nxt -> assert(u_rd == app_nxt); u_rd++; app_nxt++ }
	:: atomic { tier == USER && owner == USER && !lock && app_end < M -> assert(u_end == app_end); u_end++; app_end++ }
	:: atomic { app_end == M && !pinned -> pinned = true }; /* shutdown(): stay in the kernel, go there, then the call itself */
		tier == KERNEL;
		atomic { assert(k_end == M && owner == KERNEL); k_end++; app_end++ }
	od
}

/* Hot removal: ring and flow rule are gone at once, nobody is asked. */
active proctype Loss()
{
	mtype m;
	byte v;

	atomic { vf = false; steer = false;
		do
		:: uq?m(v)
		:: empty(uq) -> break
		od;
		m = 0; v = 0 }
}

/* What the kernel accepted after its state was read. */
inline late() {
	atomic {
#ifndef NOLATE
		if
		:: k_fin -> u_fin = true
		:: else
		fi;
		if
		:: k_fin && u_nxt < N -> u_nxt = N
		:: !k_fin && k_nxt > u_nxt -> u_nxt = k_nxt
		:: else
		fi;
		if
		:: k_una > u_una -> u_una = k_una;
			if
			:: u_snd < u_una -> u_snd = u_una
			:: else
			fi
		:: else
		fi
#else
		skip
#endif
	}
}

inline barrier() {
#ifndef NOBARRIER
	!kp                                  /* a grace period after the filter was attached */
#else
	skip
#endif
}

inline settle() {
	barrier();
	late();
#ifndef NOPURGE
	if
	:: k_una < k_end ->                  /* rehash with the same numbers: purges the queue, stops its timers */
		hashed = false;
		atomic { k_una = k_end; k_snd = k_end; hashed = true }
	:: else
	fi;
#endif
	settled = true
}

inline promote() {
	guard = true;
#ifdef NOGUARD
	guard = false;
#endif
	atomic {
		if
		:: vf -> steer = true
		:: else
		fi };
#ifndef NOFILTER
	filter = true;
#endif
	atomic {
		assert(owner == KERNEL);             /* nobody else is at it */
		u_rd = k_rd; u_nxt = k_nxt; u_una = k_una; u_snd = k_snd; u_end = k_end;
		k_rd = k_nxt;
		settled = false; u_fin = false;
		if
		:: k_fin -> u_fin = true; u_nxt = N /* came in since the state was asked: back at once */
		:: else
		fi;
		owner = USER;
		assert(k_end <= M) };                /* a FIN of ours is the kernel's */
#ifdef EAGER
	hashed = false;
	atomic { k_nxt = u_nxt; k_una = k_end; k_snd = k_end; hashed = true; settled = true };
#endif
}

inline demote() {
#ifdef UNFROZEN
	atomic { d_rd = u_rd; d_nxt = u_nxt; d_una = u_una; d_snd = u_snd; d_end = u_end };
	owner = NONE;
#else
	owner = NONE;                        /* the userspace stack stops */
#endif
	if
	:: !settled -> barrier(); late()
	:: else
	fi;
#ifndef UNFROZEN
	atomic { d_rd = u_rd; d_nxt = u_nxt; d_una = u_una; d_snd = u_snd; d_end = u_end };
#endif
#ifdef EARLYFILTER
	filter = false;
#endif
	/* connect(AF_UNSPEC): the old send queue goes */
	atomic { d_fin = u_fin; settled = true; hashed = false; k_una = 0; k_snd = 0; k_end = 0 };
	atomic { k_una = d_una; k_snd = d_snd; k_end = d_end; k_nxt = d_nxt; k_rd = d_nxt; k_fin = false; hashed = true };
#ifndef NORCV
	k_rd = d_rd;
#endif
	atomic { filter = false; owner = KERNEL;
#ifdef FINASDATA
		d_fin = false;
#endif
		assert(k_nxt >= acked || (d_fin && k_nxt == N && acked == N + 1));
		assert(k_rd == app_nxt);
		assert(k_end == app_end && k_una <= p_nxt) };
	/* Leftovers of the VF's ring go through the kernel, or are lost as on any network; the FIN may not be. */
	do
	:: atomic { uq?[m, v] -> uq?m(v);
		if
		:: nfull(kq) -> kq!m(v)
		:: skip
		fi }
	:: break
	od;
	if
	:: d_fin -> kq!DATA(N);
#ifndef NOWAITFIN
		k_fin                /* or the next promotion's filter eats it, and nobody would send it again */
#endif
	:: else
	fi;
	steer = false;
	atomic {
		do
		:: uq?m(v)
		:: empty(uq) -> break
		od;
		m = 0; v = 0; u_fin = false; d_fin = false;
		u_rd = 0; u_nxt = 0; u_una = 0; u_snd = 0; u_end = 0; d_rd = 0; d_nxt = 0; d_una = 0; d_snd = 0; d_end = 0 }
}

active [MOVERS] proctype Move()
{
	mtype m;
	byte v;

	do
#ifdef NOCAS
	:: moves > 0 && vf && tier == KERNEL && !k_fin -> moves--; tier = MOVING;
#else
#ifdef PINFIRST
	:: moves > 0 && vf && !pinned && !k_fin ->
		if
		:: atomic { moves > 0 && tier == KERNEL -> moves--; tier = MOVING }
		:: else -> goto again
		fi;
#else
	:: atomic { moves > 0 && vf && tier == KERNEL && !k_fin -> moves--; tier = MOVING };
#endif
#endif
#ifndef NOINFLIGHT
		if
		:: inflight != 0 -> tier = KERNEL; goto again
		:: else
		fi;
#endif
#ifndef PINFIRST
		if
		:: pinned -> tier = KERNEL; goto again
		:: else
		fi;
#endif
		promote();
		tier = USER
#ifdef NOLOCK
	:: tier == USER && !settled -> settle()
	:: tier == USER ->
#else
	:: atomic { tier == USER && !lock && !settled -> lock = true }; settle(); lock = false
#ifdef NOTMOVING
	:: atomic { tier != KERNEL && !lock -> lock = true };
#else
	:: atomic { tier == USER && !lock -> lock = true };
#endif
#endif
		tier = MOVING;
		demote();
		atomic { tier = KERNEL; lock = false }
	:: atomic { moves > 0 -> moves-- }
	:: moves == 0 && tier == KERNEL -> break
again:	skip
	od
}

/* At last everything has to have arrived, and both FINs with it. */
active proctype Final()
{
	moves == 0 && tier == KERNEL && app_nxt == N && p_una == N + 1 && p_nxt == M + 1 && app_end == M + 1 && k_una == M + 1 && !kp && len(kq) == 0;
	assert(k_fin && owner == KERNEL && !filter)
}
