// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// How often each process was asked for each capability, and what the answer was. The kernel asks at every growth of
// memory, so checks are counted here and not told one by one.
struct row_key { unsigned int tgid, ppid, uid; unsigned short capability; unsigned char refused, elsewhere; };
#define VALUES 1
#include "top.h"

int tp_btf__cap_capable(u64 *ctx)
{
    u64 task = bpf_get_current_task();
    s32 result = ctx[4];
    struct row_key key = {.tgid = bpf_get_current_pid_tgid() >> 32, .uid = bpf_get_current_uid_gid()};
    struct row_value one = {.n = {1}};
#ifdef FILTERED
    char comm[16] = {};
    bpf_get_current_comm(comm, sizeof(comm));
    if (!is_wanted(key.tgid, key.uid, comm, result, ~0ULL))
        return 0;
#endif
    key.ppid = read32(read64(task, OFF_TASK_PARENT), OFF_TASK_TGID);
    key.capability = ctx[3];
    key.refused = result != 0;
    key.elsewhere = read32(ctx[1], OFF_USERNS_LEVEL) != 0;  // not in the initial user namespace
    if (count_row(&key, &one))
        remember();
    return 0;
}

// A row that is there already keeps its process's name: it is what it is called now.
int tp_btf__sched_process_exec(u64 *ctx)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    if (names.lookup(&tgid))
        remember();
    return 0;
}
