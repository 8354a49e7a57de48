// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Latency of every system call, by process and call. Calls that do not return (exit, a successful exec from a thread
// that is not the first) are not counted: they have no latency.
#include "cost.h"
#include "latency.h"

struct slot { u64 since; u32 pid; u16 nr; u16 weight; };
#include "slots.h"
#define NOT_A_CALL 0xffff  // numbers that no table holds, as a 32-bit caller may use them

static __always_inline void entered(u64 *ctx)
{
#ifdef TARGET_TGID
    if (bpf_get_current_pid_tgid() >> 32 != TARGET_TGID)
        return;
#endif
    // First, as it is what most calls cost on a node that samples. Of an earlier call nothing is left in the slot.
    u32 weight = draw_weight();
    if (!weight)
        return;
    u64 id = bpf_get_current_pid_tgid();
    struct slot *slot = slot_of(id);
    if (!slot)
        return;
    if (slot->since && slot->pid != (u32)id)
        count_lost();
    slot->pid = id;
    slot->nr = ctx[1] > NOT_A_CALL ? NOT_A_CALL : ctx[1];
    slot->weight = weight;
    slot->since = bpf_ktime_get_ns();
}

int tp_btf__sys_enter(u64 *ctx)
{
    u64 began = cost_begin();
    entered(ctx);
    cost_end(began);
    return 0;
}

int tp_btf__sched_process_exit(u64 *ctx)
{
    forget(bpf_get_current_pid_tgid());
    return 0;
}

int tp_btf__sched_process_exec(u64 *ctx)
{
    u32 before = ctx[1];
    if (before != (u32)bpf_get_current_pid_tgid())
        forget(before);
    return 0;
}

static __always_inline void left(u64 *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    struct slot *slot = slot_of(id);
    if (!slot || slot->pid != (u32)id || !slot->since)
        return;
    u64 took = bpf_ktime_get_ns() - slot->since;
    slot->since = 0;
    if (wanted_process() && hist_add(id >> 32, slot->nr, 0, took, slot->weight))
        remember(id >> 32, bpf_get_current_task());
}

int tp_btf__sys_exit(u64 *ctx)
{
    u64 began = cost_begin();
    left(ctx);
    cost_end(began);
    return 0;
}
