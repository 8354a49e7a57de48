// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Waits in futex(2), by process, kind of wait and how it ended. Only the waiting operations are timed.
#include "cost.h"
#include "latency.h"

struct slot { u64 since; u32 pid; u16 op; u16 weight; };
#include "slots.h"
enum { WAIT = 0, LOCK_PI = 6, WAIT_BITSET = 9, WAIT_REQUEUE_PI = 11, LOCK_PI2 = 13 };
enum { WOKEN, TIMED_OUT, CHANGED, INTERRUPTED, FAILED_ };

static __always_inline void entered(u32 op)
{
    op &= 127;  // without FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME
    if (op != WAIT && op != WAIT_BITSET && op != LOCK_PI && op != LOCK_PI2 && op != WAIT_REQUEUE_PI)
        return;
    u32 weight = draw_weight();
    if (!weight)
        return;
    u32 pid = bpf_get_current_pid_tgid();
    struct slot *slot = slot_of(pid);
    if (!slot)
        return;
    if (slot->since && slot->pid != pid)
        count_lost();
    slot->pid = pid;
    slot->op = op;
    slot->weight = weight;
    slot->since = bpf_ktime_get_ns();
}

static __always_inline void left(long result)
{
    u64 id = bpf_get_current_pid_tgid();
    struct slot *slot = slot_of(id);
    if (!slot || slot->pid != (u32)id || !slot->since)
        return;
    u64 took = bpf_ktime_get_ns() - slot->since;
    u16 how = FAILED_;
    slot->since = 0;
    if (result == 0)
        how = WOKEN;
    else if (result == -110)  // ETIMEDOUT
        how = TIMED_OUT;
    else if (result == -11)  // EAGAIN: the word had another value
        how = CHANGED;
    else if (result == -4 || result <= -512)  // EINTR, and the kernel's marks of a call to be begun again
        how = INTERRUPTED;
    if (wanted_process() && hist_add(id >> 32, slot->op, how, took, slot->weight))
        remember(id >> 32, bpf_get_current_task());
}

TRACEPOINT_PROBE(syscalls, sys_enter_futex)
{
    u64 began = cost_begin();
    entered(args->op);
    cost_end(began);
    return 0;
}

TRACEPOINT_PROBE(syscalls, sys_exit_futex)
{
    u64 began = cost_begin();
    left(args->ret);
    cost_end(began);
    return 0;
}

int tp_btf__sched_process_exit(u64 *ctx)
{
    forget(bpf_get_current_pid_tgid());
    return 0;
}
