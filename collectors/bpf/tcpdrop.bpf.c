// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Every TCP packet that the kernel throws away, and why. Addresses are the packet's own: not every one has a socket.
#define DETAIL_BYTES 64
#include "socket.h"
#include "sock_owner.h"

struct told { struct addresses addresses; u64 inode; u32 reason; u16 state; u8 flags, pad; u32 length, more; };
struct v4 { u8 version, tos; u16 length; u32 skip; u8 ttl, protocol; u16 check; u8 from[4], to[4]; };
struct v6 { u8 version, skip[3]; u16 length; u8 next, hops; u8 from[16], to[16]; };
struct ports { u16 from, to; u32 sequence, acknowledged; u8 offset, flags; };

int tp_btf__kfree_skb(u64 *ctx)
{
    u64 skb = ctx[0], sk = 0;
    u16 protocol = read16(skb, OFF_SKB_PROTOCOL);
    if (protocol != 0x0008 && protocol != 0xdd86)  // as on the wire: 0x0800, 0x86dd
        return 0;
#ifdef REASON_PURGE
    if ((u32)ctx[2] == REASON_PURGE)
        return 0;  // a socket that closes empties its queues: at every connection's end, and no packet is lost by it
#endif
    u64 at = read64(skb, OFF_SKB_HEAD) + read16(skb, OFF_SKB_NETWORK);
    struct told told = {};
    if (protocol == 0x0008) {
        struct v4 ip = {};
        bpf_probe_read_kernel(&ip, sizeof(ip), (void *)at);
        if (ip.version >> 4 != 4 || ip.protocol != IPPROTO_OF_TCP)
            return 0;
        told.addresses.family = AF_INET4;
        __builtin_memcpy(told.addresses.address, ip.from, 4);
        __builtin_memcpy(told.addresses.peer, ip.to, 4);
        at += (ip.version & 15) * 4;
    } else {
        struct v6 ip = {};
        bpf_probe_read_kernel(&ip, sizeof(ip), (void *)at);
        if (ip.version >> 4 != 6 || ip.next != IPPROTO_OF_TCP)
            return 0;
        told.addresses.family = AF_INET_6;
        __builtin_memcpy(told.addresses.address, ip.from, 16);
        __builtin_memcpy(told.addresses.peer, ip.to, 16);
        at += sizeof(ip);
    }
    struct ports ports = {};
    bpf_probe_read_kernel(&ports, 14, (void *)at);
    told.addresses.port = __builtin_bswap16(ports.from);
    told.addresses.peer_port = __builtin_bswap16(ports.to);
    told.flags = ports.flags;
    told.reason = ctx[2];
    told.length = read32(skb, OFF_SKB_LEN);
#ifdef DROP_TELLS_SOCKET
    sk = ctx[3];
#endif
    if (!sk)
        sk = read64(skb, OFF_SKB_SK);
    if (sk) {
        told.state = read16(sk, OFF_SK_STATE) & 0xff;
        if (told.state == TIME_WAIT || told.state == NEW_SYN_RECV)
            sk = 0;  // these are smaller than a socket
    }
    struct event *event = reserve();
    if (!event)
        return 0;
    fill_owner(event, &told.inode, sk);
    __builtin_memcpy(event->detail, &told, sizeof(told));
    submit(event);
    return 0;
}
