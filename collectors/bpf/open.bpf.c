// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Every open, openat, openat2 and creat that returned, with its path as the caller gave it. The path is read at the
// exit: only then it is certain that its page is in memory.
#define DETAIL_BYTES 280
#include "call.h"

#define AT_CWD -100
#define CREAT_FLAGS 01101  // O_CREAT | O_WRONLY | O_TRUNC

struct opened { u64 flags; u32 mode; u32 resolve; s32 directory; s32 fd; char path[256]; };

static __always_inline struct event *opened(const struct call *call, long result)
{
    struct event *event = told(call, result);
    if (!event)
        return 0;
    struct opened *to = (struct opened *)event->detail;
    to->flags = call->c;
    to->mode = call->d;
    to->resolve = 0;
    to->directory = call->at ? (s32)call->a : AT_CWD;
    to->fd = result < 0 ? -1 : result;
    __builtin_memset(to->path, 0, sizeof(to->path));
    if (call->b)
        bpf_probe_read_user_str(to->path, sizeof(to->path), (void *)call->b);
    return event;
}

static __always_inline int left(long result)
{
    struct call call;
    returned(&call);
    struct event *event = opened(&call, result);
    if (event)
        events.ringbuf_submit(event, 0);
    return 0;
}

static __always_inline int left_how(long result)
{
    struct call call;
    struct { u64 flags, mode, resolve; } how = {};
    returned(&call);
    if (call.c)
        bpf_probe_read_user(&how, sizeof(how), (void *)call.c);
    call.c = how.flags;
    call.d = how.mode;
    struct event *event = opened(&call, result);
    if (event) {
        ((struct opened *)event->detail)->resolve = how.resolve;
        events.ringbuf_submit(event, 0);
    }
    return 0;
}

TRACEPOINT_PROBE(syscalls, sys_enter_openat)
{
    return entered(args->dfd, (u64)args->filename, args->flags, args->mode);
}
TRACEPOINT_PROBE(syscalls, sys_enter_openat2) { return entered(args->dfd, (u64)args->filename, (u64)args->how, 0); }
TRACEPOINT_PROBE(syscalls, sys_exit_openat) { return left(args->ret); }
TRACEPOINT_PROBE(syscalls, sys_exit_openat2) { return left_how(args->ret); }
#ifdef OLD_CALLS
// Machines of the first hour, such as x86; others have openat alone. Written out, as the loader asks for every
// tracepoint that stands in TRACEPOINT_PROBE.
int tracepoint__syscalls__sys_enter_open(struct tracepoint__syscalls__sys_enter_open *args)
{
    return entered(AT_CWD, (u64)args->filename, args->flags, args->mode);
}
int tracepoint__syscalls__sys_enter_creat(struct tracepoint__syscalls__sys_enter_creat *args)
{
    return entered(AT_CWD, (u64)args->pathname, CREAT_FLAGS, args->mode);
}
int tracepoint__syscalls__sys_exit_open(struct tracepoint__syscalls__sys_exit_open *args) { return left(args->ret); }
int tracepoint__syscalls__sys_exit_creat(struct tracepoint__syscalls__sys_exit_creat *args) { return left(args->ret); }
#endif
