// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Every process that the kernel kills for want of memory. The event's process is the victim.
#include "event.h"

struct memory { u64 anon_kb, file_kb, shmem_kb; u32 by; u32 pad; };

TRACEPOINT_PROBE(oom, mark_victim)
{
    struct event *event = reserve();
    if (!event)
        return 0;
    fill_current(event);
    struct memory *memory = (struct memory *)event->detail;
    __builtin_memset(event->detail, 0, sizeof(event->detail));
    memory->by = event->pid;
    event->result = -9;
    if (event->pid != args->pid) {
        // The victim is another process than the one that asked for memory; user space looks it up.
        event->pid = args->pid;
        event->ppid = 0;
        event->uid = 0;
        event->cgroup = 0;
        __builtin_memset(event->comm, 0, sizeof(event->comm));
    }
#ifdef MARK_VICTIM_TELLS
    TP_DATA_LOC_READ_STR(event->comm, comm, sizeof(event->comm));
    event->uid = args->uid;
    memory->anon_kb = args->anon_rss;
    memory->file_kb = args->file_rss;
    memory->shmem_kb = args->shmem_rss;
#endif
    submit(event);
    return 0;
}
