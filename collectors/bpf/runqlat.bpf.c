// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Run queue latency: from runnable (woken, new, or preempted) to running, by process.
// All kernel threads count as one process, kthreadd (2). Slots are found by pid without hashing; two pids in one slot
// are only possible above 262144 pids, and what that costs is counted as lost.
#include "cost.h"
#include "latency.h"

// At a switch the thread that has waited is not the current one yet.
static __always_inline int wanted_task(u64 task, u32 tgid)
{
#ifdef FILTERED
    char comm[16] = {};
    bpf_probe_read_kernel(comm, sizeof(comm), (void *)(task + OFF_TASK_COMM));
    return is_wanted(tgid, read32(read64(task, OFF_TASK_CRED), OFF_CRED_UID), comm, 1, ~0ULL);
#else
    return 1;
#endif
}

// since 0: it does not wait, or that wait is not taken. A thread that is woken again while it waits (it was preempted just
// before it would have blocked) draws again: with sampling on, the rest of such a wait has a second chance.
struct slot { u64 since; u32 pid; u32 weight; };
#include "slots.h"

static __always_inline void runnable(u64 task)
{
    u32 weight = draw_weight();
    if (!weight)
        return;
    u32 pid = load32(task, OFF_TASK_PID);
    struct slot *slot = slot_of(pid);
    if (!slot || !pid)
        return;
    if (slot->since) {
        if (slot->pid == pid)
            return;  // it waits already
        count_lost();
    }
    slot->pid = pid;
    slot->weight = weight;
    slot->since = bpf_ktime_get_ns();
}

static __always_inline void woken(u64 *ctx)
{
    runnable(ctx[0]);
}

int tp_btf__sched_wakeup(u64 *ctx)
{
    u64 began = cost_begin();
    woken(ctx);
    cost_end(began);
    return 0;
}

int tp_btf__sched_wakeup_new(u64 *ctx)
{
    runnable(ctx[0]);
    return 0;
}

static __always_inline void switched(u64 *ctx)
{
    u64 prev = ctx[1], next = ctx[2];
    u32 pid = load32(prev, OFF_TASK_PID), weight;
    struct slot *slot;
    if (pid && (slot = slot_of(pid))) {
        if ((ctx[0] || !(u32)ctx[3]) && (weight = draw_weight())) {
            if (slot->since && slot->pid != pid)
                count_lost();
            slot->pid = pid;
            slot->weight = weight;
            slot->since = bpf_ktime_get_ns();
        } else if (slot->since && slot->pid == pid) {
            slot->since = 0;  // woken while it ran: that was no wait
        }
    }
    pid = load32(next, OFF_TASK_PID);
    if (!pid || !(slot = slot_of(pid)) || slot->pid != pid || !slot->since)
        return;
    s64 waited = bpf_ktime_get_ns() - slot->since;
    slot->since = 0;
    u32 tgid = load32(next, OFF_TASK_FLAGS) & 0x00200000 ? 2 : load32(next, OFF_TASK_TGID);  // PF_KTHREAD
    if (waited < 0)
        waited = 0;
    if (wanted_task(next, tgid) && hist_add(tgid, 0, 0, waited, slot->weight) && tgid != 2)
        remember(tgid, next);
}

int tp_btf__sched_switch(u64 *ctx)
{
    u64 began = cost_begin();
    switched(ctx);
    cost_end(began);
    return 0;
}
