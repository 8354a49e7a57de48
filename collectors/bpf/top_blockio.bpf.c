// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Block I/O by the process that issued it, device and operation: requests, bytes, time from issue to completion.
// Write-back is the kernel's own (process 2). A request that completes in parts counts once, at its end.
struct row_key { unsigned int tgid, dev, op, pad; };
#define VALUES 3
enum { REQUESTS, BYTES, TIME };
#include "top.h"

struct start { u64 at; u32 tgid; u32 dev; u32 op; u32 bytes; };
BPF_HASH(started, u64, struct start, 16384);

int tp_btf__block_rq_issue(u64 *ctx)
{
    u64 rq = ctx[0], disk = read64(read64(rq, OFF_RQ_Q), OFF_Q_DISK);
    struct start start = {.at = bpf_ktime_get_ns(), .bytes = read32(rq, OFF_RQ_DATA_LEN)};
    int kernel_thread = read32(bpf_get_current_task(), OFF_TASK_FLAGS) & 0x00200000;
    if (!is_mine())
        return 0;
    start.tgid = kernel_thread ? 2 : bpf_get_current_pid_tgid() >> 32;
    start.dev = disk ? read32(disk, OFF_DISK_MAJOR) << 20 | read32(disk, OFF_DISK_MINOR) : 0;
    start.op = read32(rq, OFF_RQ_FLAGS) & 0xff;
    if (started.update(&rq, &start))
        count_lost();
    // Who it is must be known here: a completion interrupts anybody.
    if (!kernel_thread)
        remember();
    return 0;
}

int tp_btf__block_rq_complete(u64 *ctx)
{
    u64 rq = ctx[0];
    struct start *start = started.lookup(&rq);
    if (!start || read32(rq, OFF_RQ_DATA_LEN) > (u32)ctx[2])
        return 0;
    struct row_key key = {.tgid = start->tgid, .dev = start->dev, .op = start->op};
    struct row_value more = {};
    more.n[REQUESTS] = 1;
    more.n[BYTES] = start->bytes;
    more.n[TIME] = bpf_ktime_get_ns() - start->at;
    count_row(&key, &more);
    started.delete(&rq);
    return 0;
}
