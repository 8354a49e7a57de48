// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// DNS over UDP: questions as they leave a network namespace of this node, answers as they arrive in it (socket filter),
// who asked (net_dev_queue runs in the sender's own context), and which call of the resolver that was (getaddrinfo).
// Fragments and IPv6 extension headers are not followed.
#include <uapi/linux/ptrace.h>
#define NAME_BYTES 64
#define DATA_BYTES 512
#define DETAIL_BYTES (48 + NAME_BYTES + DATA_BYTES)
#include "socket.h"

#define DNS 53
#define IPPROTO_OF_UDP 17
enum { TO_US = 0, OUTGOING = 4 };  // linux/if_packet.h
enum { QUESTION, ANSWER, CALL };

struct seen { struct addresses addresses; u16 length, what; u32 pad; char call[NAME_BYTES]; u8 data[DATA_BYTES]; };
struct udp { u16 from, to, length, check, id, flags; };
struct asked { u16 id, port; };
struct owner { u64 cgroup; u32 pid, ppid, uid, pad; char comm[16]; char call[NAME_BYTES]; };
struct call { u64 at; u32 asked, pad; char name[NAME_BYTES]; };
BPF_TABLE("lru_hash", struct asked, struct owner, owners, 4096);
BPF_TABLE("lru_hash", u64, struct call, calls, 4096);

int tp_btf__net_dev_queue(u64 *ctx)
{
    u64 skb = ctx[0], sk = read64(skb, OFF_SKB_SK);
    if (!sk || read16(sk, OFF_SK_PROTOCOL) != IPPROTO_OF_UDP)
        return 0;
    struct udp udp = {};
    bpf_probe_read_kernel(&udp, sizeof(udp), (void *)(read64(skb, OFF_SKB_HEAD) + read16(skb, OFF_SKB_TRANSPORT)));
    if (udp.to != __builtin_bswap16(DNS))
        return 0;
    struct asked asked = {.id = udp.id, .port = udp.from};
    struct owner owner = {};
    owner.cgroup = bpf_get_current_cgroup_id();
    owner.pid = bpf_get_current_pid_tgid() >> 32;
    owner.ppid = read32(read64(bpf_get_current_task(), OFF_TASK_PARENT), OFF_TASK_TGID);
    owner.uid = bpf_get_current_uid_gid();
    bpf_get_current_comm(owner.comm, sizeof(owner.comm));
    u64 thread = bpf_get_current_pid_tgid();
    struct call *call = calls.lookup(&thread);
    if (call) {
        call->asked = 1;
        __builtin_memcpy(owner.call, call->name, NAME_BYTES);
    }
    owners.update(&asked, &owner);
    return 0;
}

int socket_filter__dns(struct __sk_buff *skb)
{
    struct addresses addresses = {};
    u8 head[40] = {};
    struct udp udp = {};
    u32 at, length = skb->len, kind = skb->pkt_type;
    if ((kind != OUTGOING && kind != TO_US) || bpf_skb_load_bytes(skb, 0, head, 20))
        return 0;
    if (head[0] >> 4 == 4) {
        if (head[9] != IPPROTO_OF_UDP || (head[6] & 0x3f) | head[7])
            return 0;
        at = (head[0] & 15) * 4;
    } else if (head[0] >> 4 == 6) {
        if (head[6] != IPPROTO_OF_UDP || bpf_skb_load_bytes(skb, 0, head, 40))
            return 0;
        at = 40;
    } else {
        return 0;
    }
    if (bpf_skb_load_bytes(skb, at, &udp, sizeof(udp)))
        return 0;
    int answer = udp.flags & 0x80;  // QR, the first bit of the third byte
    if (answer ? kind != TO_US || udp.from != __builtin_bswap16(DNS) : kind != OUTGOING || udp.to != __builtin_bswap16(DNS))
        return 0;
    u8 *own = answer ? addresses.peer : addresses.address, *other = answer ? addresses.address : addresses.peer;
    if (head[0] >> 4 == 4) {
        addresses.family = AF_INET4;
        __builtin_memcpy(own, head + 12, 4);
        __builtin_memcpy(other, head + 16, 4);
    } else {
        addresses.family = AF_INET_6;
        __builtin_memcpy(own, head + 8, 16);
        __builtin_memcpy(other, head + 24, 16);
    }
    addresses.port = __builtin_bswap16(answer ? udp.to : udp.from);
    addresses.peer_port = DNS;
    struct event *event = reserve();
    if (!event)
        return 0;
    struct seen *seen = (struct seen *)event->detail;
    seen->addresses = addresses;
    seen->what = answer ? ANSWER : QUESTION;
    seen->pad = 0;
    event->at = bpf_ktime_get_ns();
    event->latency = 0;
    event->result = 0;
    struct asked asked = {.id = udp.id, .port = udp.from};
    struct owner *owner = answer ? 0 : owners.lookup(&asked);
    if (owner) {
        event->cgroup = owner->cgroup;
        event->pid = owner->pid;
        event->ppid = owner->ppid;
        event->uid = owner->uid;
        __builtin_memcpy(event->comm, owner->comm, sizeof(event->comm));
        __builtin_memcpy(seen->call, owner->call, NAME_BYTES);
    } else {
        event->cgroup = 0;
        event->pid = event->ppid = event->uid = 0;
        __builtin_memset(event->comm, 0, sizeof(event->comm));
        __builtin_memset(seen->call, 0, NAME_BYTES);
    }
    at += 8;
    length = length > at ? length - at : 0;
    if (length > DATA_BYTES)
        length = DATA_BYTES;
    seen->length = length;
    u32 more = length - 1;
    asm volatile("" : "+r"(more));  // so that the verifier sees the bound where it is used
    more &= DATA_BYTES - 1;
    if (!length || bpf_skb_load_bytes(skb, at, seen->data, more + 1)) {
        events.ringbuf_discard(event, 0);
        return 0;
    }
    events.ringbuf_submit(event, 0);
    return 0;  // the socket itself wants nothing
}

int uprobe__getaddrinfo(struct pt_regs *ctx)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct call call = {.at = bpf_ktime_get_ns()};
    if (bpf_probe_read_user_str(call.name, sizeof(call.name), (void *)PT_REGS_PARM1(ctx)) > 1)
        calls.update(&thread, &call);
    return 0;
}

// A call that asked nobody over UDP: a file, a cache, or a service that asks in its stead.
int uretprobe__getaddrinfo(struct pt_regs *ctx)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct call *call = calls.lookup(&thread);
    if (!call)
        return 0;
    struct event *event = call->asked ? 0 : reserve();
    if (event) {
        struct seen *seen = (struct seen *)event->detail;
        fill_current(event);
        event->latency = event->at - call->at;
        event->result = PT_REGS_RC(ctx);
        __builtin_memset(&seen->addresses, 0, sizeof(seen->addresses));
        seen->length = seen->pad = 0;
        seen->what = CALL;
        __builtin_memcpy(seen->call, call->name, NAME_BYTES);
        events.ringbuf_submit(event, 0);
    }
    calls.delete(&thread);
    return 0;
}
