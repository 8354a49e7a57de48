// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Every TCP connection that this node opens: who, where to, how long until it was established or refused.
// Blocking or not: the socket's own state decides. A connect that fails before its first packet (no route, no free
// port) is not seen. Given up by the process itself: result -ECANCELED.
#include "socket.h"

struct start { u64 at; u64 cgroup; u32 pid, ppid, uid, pad; char comm[16]; };
BPF_HASH(started, u64, struct start, 16384);

int tp_btf__inet_sock_set_state(u64 *ctx)
{
    u64 sk = ctx[0];
    int from = ctx[1], to = ctx[2];
    if (to == SYN_SENT) {
        u64 task = bpf_get_current_task();
        struct start start = {.at = bpf_ktime_get_ns()};
        if (read16(sk, OFF_SK_PROTOCOL) != IPPROTO_OF_TCP)
            return 0;
        start.cgroup = bpf_get_current_cgroup_id();
        start.pid = bpf_get_current_pid_tgid() >> 32;
        start.ppid = read32(read64(task, OFF_TASK_PARENT), OFF_TASK_TGID);
        start.uid = bpf_get_current_uid_gid();
        bpf_get_current_comm(start.comm, sizeof(start.comm));
        if (started.update(&sk, &start))
            count_lost();
        return 0;
    }
    if (from != SYN_SENT)
        return 0;
    struct start *start = started.lookup(&sk);
    if (!start)
        return 0;
    struct event *event = reserve();
    if (event) {
        event->at = bpf_ktime_get_ns();
        event->cgroup = start->cgroup;
        event->latency = event->at - start->at;
        event->pid = start->pid;
        event->ppid = start->ppid;
        event->uid = start->uid;
        __builtin_memcpy(event->comm, start->comm, sizeof(event->comm));
        event->result = to == CLOSE ? -(s32)read32(sk, OFF_SK_ERR) : 0;
        if (to == CLOSE && !event->result)
            event->result = -125;
        fill_addresses((struct addresses *)event->detail, sk);
        submit(event);
    }
    started.delete(&sk);
    return 0;
}
