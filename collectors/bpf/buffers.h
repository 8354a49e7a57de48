// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Two buffers, one filled while the other is drained. A program counts itself in for as long as it uses one, so that
// user space (collectors/bpf/buffers.py) knows when nobody uses the old one any more. Waiting for an RCU grace period
// instead takes as long as the busiest CPU likes: 24 s were seen on a node that switched contexts all the time.
#ifndef PERFSTREAM_BUFFERS_H
#define PERFSTREAM_BUFFERS_H

BPF_PERCPU_ARRAY(users, u64, 2);

// Enter the buffer that `active` names and set `buffer` to it; returns what count_out wants, 0 when it cannot.
static __always_inline u64 *count_in(volatile u32 *active, u32 *buffer)
{
    u32 which = *active & 1;
    u64 *inside = users.lookup(&which);
    if (!inside)
        return 0;
    // The addition is a full barrier: whoever sees no user after a switch sees nobody who still follows the old word.
    __sync_fetch_and_add(inside, 1);
    if ((*active & 1) != which) {
        __sync_fetch_and_add(inside, -1);
        which ^= 1;
        inside = users.lookup(&which);
        if (!inside)
            return 0;
        __sync_fetch_and_add(inside, 1);
    }
    *buffer = which;
    return inside;
}

static __always_inline void count_out(u64 *inside)
{
    __sync_fetch_and_add(inside, -1);
}

#endif
