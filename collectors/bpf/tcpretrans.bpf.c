// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Every segment that TCP sends again, and every SYN-ACK of a connection that is being opened.
#define DETAIL_BYTES 56
#include "socket.h"
#include "sock_owner.h"

struct told { struct addresses addresses; u64 inode; u32 state; u32 pad; };

int tp_btf__tcp_retransmit_skb(u64 *ctx)
{
    u64 sk = ctx[0];
    struct event *event = reserve();
    if (!event)
        return 0;
    struct told *told = (struct told *)event->detail;
    fill_addresses(&told->addresses, sk);
    fill_owner(event, &told->inode, sk);
    told->state = read16(sk, OFF_SK_STATE) & 0xff;
    told->pad = 0;
#ifdef RETRANSMIT_TELLS
    s32 result = ctx[2];
    event->result = result < 0 ? result : 0;
#endif
    submit(event);
    return 0;
}

// The request is no whole socket, but its addresses stand where a socket's do. Its owner is who listens.
int tp_btf__tcp_retransmit_synack(u64 *ctx)
{
    struct event *event = reserve();
    if (!event)
        return 0;
    struct told *told = (struct told *)event->detail;
    fill_addresses(&told->addresses, ctx[1]);
    fill_owner(event, &told->inode, ctx[0]);
    told->state = NEW_SYN_RECV;
    told->pad = 0;
    submit(event);
    return 0;
}
