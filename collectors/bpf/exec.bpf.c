// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Every execve and execveat: the path, who, where, and the result. Of the environment only what environment.h says;
// arguments only with -DARGUMENTS, which a live gadget asks for.
#define PATH_BYTES 256
#define PLACE_BYTES 256
#ifdef ARGUMENTS
#define ARGUMENT_BYTES 512
#else
#define ARGUMENT_BYTES 0
#endif
#define DETAIL_BYTES (PATH_BYTES + 8 + PLACE_BYTES + ARGUMENT_BYTES)
#include "environment.h"
#include "event.h"
#include "path.h"

struct executed {
    char path[PATH_BYTES];
    u8 environment, whole, pad[2];
    u16 place_length, arguments_length;
    char place[PLACE_BYTES];  // the working directory, names from the leaf on
#ifdef ARGUMENTS
    char arguments[ARGUMENT_BYTES];
#endif
};

struct start { u64 at; u64 path; u64 arguments; };
BPF_TABLE("lru_hash", u32, struct start, started, 4096);
BPF_PERCPU_ARRAY(places, struct file_path, 1);

static __always_inline void fill_place(struct executed *to, u64 task)
{
    int zero = 0;
    struct file_path *path = places.lookup(&zero);
    if (!path)
        return;
    // The working directory's path lies in fs_struct as a file's does in a file.
    walk_path(path, read64(task, OFF_TASK_FS) + OFF_FS_PWD - OFF_FILE_MNT);
    to->whole = path->whole && path->length <= PLACE_BYTES;
    to->place_length = path->length <= PLACE_BYTES ? path->length : PLACE_BYTES;
    bpf_probe_read_kernel(to->place, PLACE_BYTES, path->names);
}

static __always_inline struct event *begin(u64 task, const struct start *start, s32 result)
{
    u64 latency = start ? bpf_ktime_get_ns() - start->at : 0;
    if (!wanted_now(result, latency))
        return 0;
    struct event *event = reserve();
    if (!event)
        return 0;
    fill_current(event);
    event->latency = latency;
    event->result = result;
    struct executed *to = (struct executed *)event->detail;
    to->path[0] = 0;
    to->environment = UNREAD;
    to->whole = 0;
    to->place_length = to->arguments_length = 0;
    fill_place(to, task);
    return event;
}

int tp_btf__sched_process_exec(u64 *ctx)
{
    u64 task = bpf_get_current_task();
    u32 old_pid = ctx[1];  // the thread that called; a successful exec gives it the process's own id
    struct event *event = begin(task, started.lookup(&old_pid), 0);
    started.delete(&old_pid);
    if (!event)
        return 0;
    struct executed *to = (struct executed *)event->detail;
    bpf_probe_read_kernel_str(to->path, sizeof(to->path), (void *)read64(ctx[2], OFF_BPRM_FILENAME));
    to->environment = read_environment(task, event->pid, event->at);
#ifdef ARGUMENTS
    u64 memory = read64(task, OFF_TASK_MM), from = read64(memory, OFF_MM_ARG_START);
    u64 length = read64(memory, OFF_MM_ARG_END) - from;
    if (length > ARGUMENT_BYTES)
        length = ARGUMENT_BYTES;
    asm volatile("" : "+r"(length));  // so that the verifier sees the bound where it is used
    if (length > 0 && length <= ARGUMENT_BYTES && !bpf_probe_read_user(to->arguments, length, (void *)from))
        to->arguments_length = length;
#endif
    events.ringbuf_submit(event, 0);
    return 0;
}

static __always_inline int enter(const char *path, const void *arguments)
{
    u32 tid = bpf_get_current_pid_tgid();
    struct start start = {.at = bpf_ktime_get_ns(), .path = (u64)path, .arguments = (u64)arguments};
    started.update(&tid, &start);
    return 0;
}

static __always_inline int leave(long result)
{
    u32 tid = bpf_get_current_pid_tgid();
    struct start *start = started.lookup(&tid);
    if (result >= 0)
        return 0;
    struct event *event = begin(bpf_get_current_task(), start, result);
    if (event) {
        struct executed *to = (struct executed *)event->detail;
        if (start) {
            bpf_probe_read_user_str(to->path, sizeof(to->path), (void *)start->path);
#ifdef ARGUMENTS
            u32 at = 0;
#pragma clang loop unroll(disable)
            for (int i = 0; i < 32; i++) {
                u64 argument = 0;
                bpf_probe_read_user(&argument, sizeof(argument), (void *)(start->arguments + i * 8));
                if (!argument || at >= ARGUMENT_BYTES / 2)
                    break;
                long n = bpf_probe_read_user_str(&to->arguments[at & (ARGUMENT_BYTES / 2 - 1)], ARGUMENT_BYTES / 2,
                                                 (void *)argument);
                if (n <= 0)
                    break;
                at += n;
            }
            to->arguments_length = at;
#endif
        }
        events.ringbuf_submit(event, 0);
    }
    started.delete(&tid);
    return 0;
}

TRACEPOINT_PROBE(syscalls, sys_enter_execve) { return enter(args->filename, args->argv); }
TRACEPOINT_PROBE(syscalls, sys_enter_execveat) { return enter(args->filename, args->argv); }
TRACEPOINT_PROBE(syscalls, sys_exit_execve) { return leave(args->ret); }
TRACEPOINT_PROBE(syscalls, sys_exit_execveat) { return leave(args->ret); }
