// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// One fixed-size record for discrete events, sent through a ring buffer; what does not fit is counted.
#ifndef PERFSTREAM_EVENT_H
#define PERFSTREAM_EVENT_H

#include "task.h"
#include "wanted.h"

#ifndef DETAIL_BYTES
#define DETAIL_BYTES 32
#endif

struct event {
    u64 at;  // CLOCK_MONOTONIC
    u64 cgroup;
    u64 latency;
    u32 pid, ppid, uid;
    s32 result;
    char comm[16];
    char detail[DETAIL_BYTES];
};

BPF_RINGBUF_OUTPUT(events, 64);
BPF_PERCPU_ARRAY(lost, u64, 1);

static __always_inline void count_lost(void)
{
    int zero = 0;
    u64 *counter = lost.lookup(&zero);
    if (counter)
        *counter += 1;
}

static __always_inline struct event *reserve(void)
{
    struct event *event = events.ringbuf_reserve(sizeof(struct event));
    if (!event)
        count_lost();
    return event;
}

static __always_inline void submit(struct event *event)
{
#ifdef FILTERED
    if (!is_wanted(event->pid, event->uid, event->comm, event->result, event->latency)) {
        events.ringbuf_discard(event, 0);
        return;
    }
#endif
    events.ringbuf_submit(event, 0);
}

// Who runs now. `detail` is left as it is: whoever reserves must write all of it.
static __always_inline void fill_current(struct event *event)
{
    u64 task = bpf_get_current_task();
    event->at = bpf_ktime_get_ns();
    event->cgroup = bpf_get_current_cgroup_id();
    event->latency = 0;
    event->pid = bpf_get_current_pid_tgid() >> 32;
    event->ppid = read32(read64(task, OFF_TASK_PARENT), OFF_TASK_TGID);
    event->uid = bpf_get_current_uid_gid();
    event->result = 0;
    bpf_get_current_comm(event->comm, sizeof(event->comm));
}

#endif
