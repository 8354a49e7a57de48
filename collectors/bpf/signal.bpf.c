// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Every signal that is generated: who runs while it is, for whom it is, and what became of it.
#define DETAIL_BYTES 40
#include "event.h"

#define OVERFLOW 3  // Linux include/trace/events/signal.h: the receiver's queue is full, the sender is told
#define NOBODY 0    // SEND_SIG_NOINFO, SEND_SIG_PRIV: marks in place of a pointer
#define KERNEL 1
enum { CODE_USER = 0, CODE_KERNEL = 0x80 };

struct generated { s32 signal, code, outcome; u32 pid, tid, whole; char comm[16]; };

int tp_btf__signal_generate(u64 *ctx)
{
    u64 info = ctx[1], task = ctx[2];
    s32 outcome = ctx[4], result = outcome == OVERFLOW ? -11 : 0;
    if (!wanted_now(result, 0))
        return 0;
    struct event *event = reserve();
    if (!event)
        return 0;
    fill_current(event);
    event->result = result;
    struct generated *to = (struct generated *)event->detail;
    to->signal = ctx[0];
    to->code = info == NOBODY ? CODE_USER : info == KERNEL ? CODE_KERNEL : (s32)read32(info, OFF_SIGINFO_CODE);
    to->outcome = outcome;
    to->pid = read32(task, OFF_TASK_TGID);
    to->tid = read32(task, OFF_TASK_PID);
    to->whole = ctx[3];
    bpf_probe_read_kernel(to->comm, sizeof(to->comm), (void *)(task + OFF_TASK_COMM));
    events.ringbuf_submit(event, 0);
    return 0;
}
