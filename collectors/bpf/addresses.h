// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// A socket's addresses: family, ports in host order, addresses as they stand in the socket (collectors/addresses.py).
#ifndef PERFSTREAM_ADDRESSES_H
#define PERFSTREAM_ADDRESSES_H

#include "task.h"

#define AF_INET4 2
#define AF_INET_6 10
#define IPPROTO_OF_TCP 6

struct addresses { u16 family; u16 port; u16 peer_port; u16 pad; u8 address[16]; u8 peer[16]; };

static __always_inline void fill_addresses(struct addresses *to, u64 sk)
{
    __builtin_memset(to, 0, sizeof(*to));
    to->family = read16(sk, OFF_SK_FAMILY);
    // A refused connect has given its port back by the time it is told; the packet's source still says it.
    to->port = read16(sk, OFF_SK_NUM) ?: __builtin_bswap16(read16(sk, OFF_INET_SPORT));
    to->peer_port = __builtin_bswap16(read16(sk, OFF_SK_DPORT));
    if (to->family == AF_INET4) {
        bpf_probe_read_kernel(to->address, 4, (void *)(sk + OFF_SK_RCV_SADDR));
        bpf_probe_read_kernel(to->peer, 4, (void *)(sk + OFF_SK_DADDR));
    } else {
        bpf_probe_read_kernel(to->address, 16, (void *)(sk + OFF_SK_V6_RCV_SADDR));
        bpf_probe_read_kernel(to->peer, 16, (void *)(sk + OFF_SK_V6_DADDR));
    }
}

#endif
