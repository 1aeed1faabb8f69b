/*
 * labdp.h - what the lab's BPF programs and their loader agree on: the slots of the one array map.
 *
 * LABDP_ACTIVE is the data path switch: the host's choice (which port of the VM a frame from the wire goes to) and the guest's (which
 * device a frame of the kernel leaves by) both read this one word, so one map write moves both directions and no frame sees half of it.
 */
#ifndef HV_LABDP_H
#define HV_LABDP_H

enum labdp_slot {
	LABDP_ACTIVE,	/* 0: synthetic path, 1: VF */
	LABDP_WIRE,	/* host: ifindex of the port towards the peer */
	LABDP_SYN,	/* host: ifindex of the synthetic port of the VM */
	LABDP_VF,	/* host: ifindex of the VF's port, 0 while there is none */
	LABDP_VM_VF,	/* guest: ifindex of the VF, 0 while there is none */
	LABDP_VM_ETH0,	/* guest: ifindex of eth0 */
	LABDP_SYN_ONLY,	/* 1: inbound SYN, broadcast and multicast always use the synthetic path, as Azure's host does */
	LABDP_QUEUES,	/* receive queues of VF and wire: the host spreads flows over them by hash, as a NIC's RSS does */
	LABDP_SLOTS
};

#endif
