// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// What processes sent and received on TCP sockets, by connection.
#include "addresses.h"
struct row_key { u32 tgid; u32 pad; struct addresses at; };
#define VALUES 4
enum { SENT, RECEIVED, SENDS, RECEIVES };
#include "top.h"

static __always_inline int moved(u64 sk, s32 bytes, int received)
{
    if (bytes <= 0 || !is_mine())
        return 0;
    u16 family = read16(sk, OFF_SK_FAMILY);
    if ((family != AF_INET4 && family != AF_INET_6) || read16(sk, OFF_SK_PROTOCOL) != IPPROTO_OF_TCP)
        return 0;
    struct row_key key = {.tgid = bpf_get_current_pid_tgid() >> 32};
    struct row_value more = {};
    fill_addresses(&key.at, sk);
    if (received) {
        more.n[RECEIVED] = bytes;
        more.n[RECEIVES] = 1;
    } else {
        more.n[SENT] = bytes;
        more.n[SENDS] = 1;
    }
    if (count_row(&key, &more))
        remember();
    return 0;
}

int tp_btf__sock_send_length(u64 *ctx)
{
    return moved(ctx[0], ctx[1], 0);
}

int tp_btf__sock_recv_length(u64 *ctx)
{
    if (ctx[2] & 2)  // MSG_PEEK: will be received again
        return 0;
    return moved(ctx[0], ctx[1], 1);
}
