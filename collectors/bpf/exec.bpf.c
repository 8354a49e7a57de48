// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Every execve and execveat: the path, who, and the result. Arguments and environment are never read.
#define DETAIL_BYTES 256
#include "event.h"

struct start { u64 at; u64 path; };
BPF_TABLE("lru_hash", u32, struct start, started, 4096);

int tp_btf__sched_process_exec(u64 *ctx)
{
    struct event *event = reserve();
    if (!event)
        return 0;
    fill_current(event);
    u32 old_pid = ctx[1];  // the thread that called; a successful exec gives it the process's own id
    struct start *start = started.lookup(&old_pid);
    if (start)
        event->latency = event->at - start->at;
    __builtin_memset(event->detail, 0, sizeof(event->detail));
    bpf_probe_read_kernel_str(event->detail, sizeof(event->detail), (void *)read64(ctx[2], OFF_BPRM_FILENAME));
    submit(event);
    started.delete(&old_pid);
    return 0;
}

static __always_inline int enter(const char *path)
{
    u32 tid = bpf_get_current_pid_tgid();
    struct start start = {.at = bpf_ktime_get_ns(), .path = (u64)path};
    started.update(&tid, &start);
    return 0;
}

static __always_inline int leave(long result)
{
    u32 tid = bpf_get_current_pid_tgid();
    struct start *start = started.lookup(&tid);
    if (result >= 0)
        return 0;
    struct event *event = reserve();
    if (event) {
        fill_current(event);
        event->result = result;
        __builtin_memset(event->detail, 0, sizeof(event->detail));
        if (start) {
            event->latency = event->at - start->at;
            bpf_probe_read_user_str(event->detail, sizeof(event->detail), (void *)start->path);
        }
        submit(event);
    }
    started.delete(&tid);
    return 0;
}

TRACEPOINT_PROBE(syscalls, sys_enter_execve) { return enter(args->filename); }
TRACEPOINT_PROBE(syscalls, sys_enter_execveat) { return enter(args->filename); }
TRACEPOINT_PROBE(syscalls, sys_exit_execve) { return leave(args->ret); }
TRACEPOINT_PROBE(syscalls, sys_exit_execveat) { return leave(args->ret); }
