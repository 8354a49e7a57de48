// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Block I/O latency: from the request's issue to the device to its completion, by device, operation and the process
// that issued it (for write-back that is a kernel worker). A request that completes in parts counts once, at its end.
#include "cost.h"
#include "latency.h"

struct start { u64 at; u32 tgid; u32 dev; u32 op; u32 pad; };
BPF_HASH(started, u64, struct start, 16384);

static __always_inline void issued(u64 *ctx)
{
    if (!wanted_process())
        return;
    u64 rq = ctx[0], disk = read64(read64(rq, OFF_RQ_Q), OFF_Q_DISK);
    u64 task = bpf_get_current_task();
    struct start start = {.at = bpf_ktime_get_ns()};
    start.tgid = read32(task, OFF_TASK_FLAGS) & 0x00200000 ? 2 : bpf_get_current_pid_tgid() >> 32;
    start.dev = disk ? read32(disk, OFF_DISK_MAJOR) << 20 | read32(disk, OFF_DISK_MINOR) : 0;
    start.op = read32(rq, OFF_RQ_FLAGS) & 0xff;
    if (started.update(&rq, &start))
        count_lost();
    if (start.tgid != 2)
        remember(start.tgid, task);
}

int tp_btf__block_rq_issue(u64 *ctx)
{
    u64 began = cost_begin();
    issued(ctx);
    cost_end(began);
    return 0;
}

static __always_inline void completed(u64 *ctx)
{
    u64 rq = ctx[0];
    struct start *start = started.lookup(&rq);
    if (!start || read32(rq, OFF_RQ_DATA_LEN) > (u32)ctx[2])
        return;
    hist_add(start->tgid, start->dev, start->op, bpf_ktime_get_ns() - start->at, 1);
    started.delete(&rq);
}

int tp_btf__block_rq_complete(u64 *ctx)
{
    u64 began = cost_begin();
    completed(ctx);
    cost_end(began);
    return 0;
}
