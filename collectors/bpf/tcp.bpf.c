// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// The life of every TCP connection: opened or refused, accepted, and closed with what went each way.
// Who a connection belongs to is seen where the kernel works for that process: at connect, accept, close or shutdown.
#define DETAIL_BYTES 72
#include "socket.h"

enum { OPENED, ACCEPTED, CLOSED };
struct told {
    struct addresses addresses;
    u64 sent, received;
    u32 retransmitted;
    u16 what, timed;  // timed: the connection's begin was seen
    u32 from, pad;    // the state that it left when it closed
};

#define SOCK_DONE_BIT 1  // enum sock_flags: the peer's FIN has come; so since Linux 2.6

struct owner { u64 asked, began, cgroup; u32 pid, ppid, uid, pad; char comm[16]; };
BPF_TABLE("lru_hash", u64, struct owner, owners, 16384);
BPF_TABLE("lru_hash", u64, u64, waiting, 16384);

static __always_inline void own(struct owner *owner)
{
    owner->cgroup = bpf_get_current_cgroup_id();
    owner->pid = bpf_get_current_pid_tgid() >> 32;
    owner->ppid = read32(read64(bpf_get_current_task(), OFF_TASK_PARENT), OFF_TASK_TGID);
    owner->uid = bpf_get_current_uid_gid();
    bpf_get_current_comm(owner->comm, sizeof(owner->comm));
}

static __always_inline struct told *tell(struct event *event, u64 sk, struct owner *owner, u16 what)
{
    struct told *told = (struct told *)event->detail;
    __builtin_memset(told, 0, sizeof(*told));
    event->at = bpf_ktime_get_ns();
    event->latency = 0;
    event->result = 0;
    event->cgroup = owner->cgroup;
    event->pid = owner->pid;
    event->ppid = owner->ppid;
    event->uid = owner->uid;
    __builtin_memcpy(event->comm, owner->comm, sizeof(event->comm));
    fill_addresses(&told->addresses, sk);
    told->what = what;
    return told;
}

static __always_inline void opened(u64 sk, struct owner *owner, int to)
{
    struct event *event = reserve();
    if (!event)
        return;
    tell(event, sk, owner, OPENED);
    event->latency = event->at - owner->asked;
    if (to == CLOSE)
        event->result = -(s32)read32(sk, OFF_SK_ERR) ?: -125;  // nobody's fault: the process gave up
    submit(event);
}

static __always_inline void closed(u64 sk, struct owner *owner, int from)
{
    struct event *event = reserve();
    if (!event)
        return;
    struct told *told = tell(event, sk, owner, CLOSED);
    told->from = from;
    if (owner->began) {
        event->latency = event->at - owner->began;
        told->timed = 1;
    }
    event->result = -(s32)read32(sk, OFF_SK_ERR);
    // Data only: what was sent twice and the peer's FIN, which the kernel counts as a byte, are taken off.
    told->sent = read64(sk, OFF_TCP_SENT) - read64(sk, OFF_TCP_RESENT);
    told->received = read64(sk, OFF_TCP_RECEIVED) - (read64(sk, OFF_SK_FLAGS) >> SOCK_DONE_BIT & 1);
    told->retransmitted = read32(sk, OFF_TCP_RETRANS);
    submit(event);
}

int tp_btf__inet_sock_set_state(u64 *ctx)
{
    u64 sk = ctx[0], now;
    int from = ctx[1], to = ctx[2];
    if (read16(sk, OFF_SK_PROTOCOL) != IPPROTO_OF_TCP)
        return 0;
    struct owner *owner = owners.lookup(&sk), made = {};
    if (to == SYN_SENT) {
        made.asked = bpf_ktime_get_ns();
        own(&made);
        owners.update(&sk, &made);
        return 0;
    }
    if (from == SYN_RECV && to == ESTABLISHED) {
        now = bpf_ktime_get_ns();
        waiting.update(&sk, &now);
        return 0;
    }
    if (from == SYN_SENT) {
        if (!owner)
            return 0;
        opened(sk, owner, to);
        owner->began = bpf_ktime_get_ns();
        if (to == CLOSE)
            owners.delete(&sk);
        return 0;
    }
    // These two are the own side's doing, so the process is at hand even if its connection is older than this program.
    if (!owner && ((from == ESTABLISHED && to == FIN_WAIT1) || (from == CLOSE_WAIT && to == LAST_ACK))) {
        own(&made);
        owners.update(&sk, &made);
        return 0;
    }
    if (to == CLOSE && from != LISTEN && from != CLOSE) {
        u64 *since = waiting.lookup(&sk);
        if (!owner)
            made.began = since ? *since : 0;
        closed(sk, owner ?: &made, from);
        owners.delete(&sk);
        waiting.delete(&sk);
    }
    return 0;
}

static __always_inline int accepted(s64 fd)
{
    if (fd < 0)
        return 0;
    u64 table = read64(read64(read64(bpf_get_current_task(), OFF_TASK_FILES), OFF_FILES_FDT), OFF_FDT_FD);
    u64 sk = read64(read64(read64(table, fd * 8), OFF_FILE_DATA), OFF_SOCKET_SK);
    u16 family = read16(sk, OFF_SK_FAMILY);
    if ((family != AF_INET4 && family != AF_INET_6) || read16(sk, OFF_SK_PROTOCOL) != IPPROTO_OF_TCP)
        return 0;
    struct owner made = {};
    own(&made);
    u64 *since = waiting.lookup(&sk);
    if (since)
        made.began = *since;
    waiting.delete(&sk);
    struct event *event = reserve();
    if (event) {
        tell(event, sk, &made, ACCEPTED);
        if (made.began)
            event->latency = event->at - made.began;
        submit(event);
    }
    owners.update(&sk, &made);
    return 0;
}

TRACEPOINT_PROBE(syscalls, sys_exit_accept) { return accepted(args->ret); }
TRACEPOINT_PROBE(syscalls, sys_exit_accept4) { return accepted(args->ret); }
