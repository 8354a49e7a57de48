// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Smoothed round-trip time of a TCP connection, each time a process takes data from it: then the process is at hand,
// and connections count by how much they are used. By the side and the service's port.
#include "cost.h"
#include "latency.h"

enum { TO, FROM };  // the port is the peer's, or the own one

static __always_inline void taken(u64 *ctx)
{
    u32 weight = draw_weight();
    if (!weight)
        return;
    u64 sk = ctx[0], task = bpf_get_current_task();
    u32 us = read32(sk, OFF_TCP_SRTT) >> 3;  // the kernel keeps eight times the mean
    if (!us)
        return;  // nothing has been measured yet
    u16 own = read16(sk, OFF_SK_NUM), peer = __builtin_bswap16(read16(sk, OFF_SK_DPORT));
    u32 side = own < peer ? FROM : TO;  // who serves has the lower port, nearly always
    u16 port = side == FROM ? own : peer;
    if (port >= EPHEMERAL)
        port = 0;
    u32 tgid = read32(task, OFF_TASK_FLAGS) & 0x00200000 ? 2 : bpf_get_current_pid_tgid() >> 32;  // PF_KTHREAD
    if (wanted_process() && hist_add(tgid, side, port, us * 1000ULL, weight) && tgid != 2)
        remember(tgid, task);
}

int tp_btf__tcp_rcv_space_adjust(u64 *ctx)
{
    u64 began = cost_begin();
    taken(ctx);
    cost_end(began);
    return 0;
}
