// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Every system call that returns, by process and call: how many, how many failed, how long they took.
struct row_key { unsigned int tgid, nr; };
#define VALUES 3
enum { CALLS, ERRORS, TIME };
#include "top.h"

struct slot { u64 since; u32 pid; u32 nr; };
#include "slots.h"

int tp_btf__sys_enter(u64 *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    struct slot *slot = slot_of(id);
    if (!slot || !is_mine())
        return 0;
    if (slot->since && slot->pid != (u32)id)
        count_lost();
    slot->pid = id;
    slot->nr = ctx[1];
    slot->since = bpf_ktime_get_ns();
    return 0;
}

int tp_btf__sched_process_exit(u64 *ctx)
{
    forget(bpf_get_current_pid_tgid());
    return 0;
}

int tp_btf__sched_process_exec(u64 *ctx)
{
    if ((u32)ctx[1] != (u32)bpf_get_current_pid_tgid())
        forget(ctx[1]);
    return 0;
}

int tp_btf__sys_exit(u64 *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    struct slot *slot = slot_of(id);
    if (!slot || slot->pid != (u32)id || !slot->since)
        return 0;
    s64 result = ctx[1];
    struct row_key key = {.tgid = id >> 32, .nr = slot->nr};
    struct row_value more = {};
    more.n[CALLS] = 1;
    more.n[ERRORS] = result < 0 && result >= -4095;
    more.n[TIME] = bpf_ktime_get_ns() - slot->since;
    slot->since = 0;
    if (count_row(&key, &more))
        remember();
    return 0;
}
