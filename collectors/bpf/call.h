// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// A system call from its enter to its exit, by thread. Who reports at exits alone is exact: each call that returned is
// a row or counted as lost. A call whose enter was not seen is still told, without what only the enter knows.
#ifndef PERFSTREAM_CALL_H
#define PERFSTREAM_CALL_H

#include "event.h"

struct call { u64 at; u64 a, b, c, d; };
#ifndef CALLS
#define CALLS 16384
#endif
BPF_HASH(calls, u32, struct call, CALLS);

static __always_inline int entered(u64 a, u64 b, u64 c, u64 d)
{
    u32 tid = bpf_get_current_pid_tgid();
    struct call call = {.at = bpf_ktime_get_ns(), .a = a, .b = b, .c = c, .d = d};
    calls.update(&tid, &call);
    return 0;
}

// Copy the enter of the call that now returns, all zero when it was not seen, and forget it.
static __always_inline void returned(struct call *call)
{
    u32 tid = bpf_get_current_pid_tgid();
    struct call *found = calls.lookup(&tid);
    __builtin_memset(call, 0, sizeof(*call));
    if (found) {
        *call = *found;
        calls.delete(&tid);
    }
}

// Reserve an event of the call that now returns, 0 when nobody wants it or there is no room (counted). Its detail is
// left as it is. Nothing is left to decide: events.ringbuf_submit it.
static __always_inline struct event *told(const struct call *call, long result)
{
    s32 failed = result < 0 ? result : 0;
    u64 latency = call->at ? bpf_ktime_get_ns() - call->at : 0;
    if (!wanted_now(failed, latency))
        return 0;
    struct event *event = reserve();
    if (event) {
        fill_current(event);
        event->result = failed;
        event->latency = latency;
    }
    return event;
}

#endif
