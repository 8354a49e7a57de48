// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Every TCP connection that a process of this node accepts: who, from where, and how long it waited to be accepted;
// and every accept on a listening TCP socket that failed (no descriptors left, aborted). Not: "try again".
#include "socket.h"

BPF_TABLE("lru_hash", u64, u64, waiting, 16384);

int tp_btf__inet_sock_set_state(u64 *ctx)
{
    u64 sk = ctx[0], now;
    if ((int)ctx[1] == SYN_RECV && (int)ctx[2] == ESTABLISHED) {
        now = bpf_ktime_get_ns();
        waiting.update(&sk, &now);
    }
    return 0;
}

BPF_TABLE("lru_hash", u32, s32, listening, 8192);

static __always_inline int enter(s32 fd)
{
    u32 tid = bpf_get_current_pid_tgid();
    listening.update(&tid, &fd);
    return 0;
}

static __always_inline int accepted(long result)
{
    u32 tid = bpf_get_current_pid_tgid();
    s64 fd = result;
    if (result < 0) {
        // EAGAIN, EINTR, and the kernel's own marks of an interrupted call: no attempt has ended.
        s32 *listener = listening.lookup(&tid);
        if (!listener || result == -11 || result == -4 || result <= -512)
            return 0;
        fd = *listener;
    }
    u64 table = read64(read64(read64(bpf_get_current_task(), OFF_TASK_FILES), OFF_FILES_FDT), OFF_FDT_FD);
    u64 sk = read64(read64(read64(table, fd * 8), OFF_FILE_DATA), OFF_SOCKET_SK);
    u16 family = read16(sk, OFF_SK_FAMILY);
    if ((family != AF_INET4 && family != AF_INET_6) || read16(sk, OFF_SK_PROTOCOL) != IPPROTO_OF_TCP)
        return 0;
    struct event *event = reserve();
    if (!event)
        return 0;
    fill_current(event);
    event->result = result < 0 ? result : 0;
    u64 *since = waiting.lookup(&sk);
    if (since)
        event->latency = event->at - *since;
    fill_addresses((struct addresses *)event->detail, sk);
    submit(event);
    waiting.delete(&sk);
    return 0;
}

TRACEPOINT_PROBE(syscalls, sys_enter_accept) { return enter(args->fd); }
TRACEPOINT_PROBE(syscalls, sys_enter_accept4) { return enter(args->fd); }

TRACEPOINT_PROBE(syscalls, sys_exit_accept) { return accepted(args->ret); }
TRACEPOINT_PROBE(syscalls, sys_exit_accept4) { return accepted(args->ret); }
