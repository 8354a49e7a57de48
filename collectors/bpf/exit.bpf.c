// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Every process that ends: its wait status and how long it lived. Threads that end before their process are not told.
#include "event.h"

// Two threads that end at the same time may both see that none is left: the first tells.
struct life { u64 started; u32 tgid; u32 pad; };
BPF_TABLE("lru_hash", struct life, u8, told, 4096);

int tp_btf__sched_process_exit(u64 *ctx)
{
    u64 task = ctx[0], signal = read64(task, OFF_TASK_SIGNAL);
    if (read32(signal, OFF_SIGNAL_LIVE))
        return 0;
    u64 leader = read64(task, OFF_TASK_LEADER);
    struct life life = {.started = read64(leader, OFF_TASK_START), .tgid = read32(leader, OFF_TASK_TGID)};
    u8 yes = 1;
    if (told.insert(&life, &yes) && told.lookup(&life))
        return 0;
    struct event *event = reserve();
    if (!event)
        return 0;
    fill_current(event);
    event->result = read32(signal, OFF_SIGNAL_CODE);
    if (!event->result)
        event->result = read32(leader, OFF_TASK_CODE);
    event->latency = event->at - life.started;
    __builtin_memset(event->detail, 0, sizeof(event->detail));
    submit(event);
    return 0;
}
