// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Every bind of an IPv4 or IPv6 socket: the address it got, or the one that it asked for and did not get.
#define DETAIL_BYTES 48
#define CALLS 1024
#include "call.h"

#define INET 2
#define INET6 10

// The first 40 bytes are laid out as collectors/addresses.py reads them; the peer's place stays empty.
struct bound { u16 family, port; u32 asked_port; u8 address[16], peer[16]; u32 protocol; s32 device; };
struct sockaddr_any { u16 family, port; u8 v4[4]; u8 v6[16]; };  // sockaddr_in; sockaddr_in6, whose flow label is v4

TRACEPOINT_PROBE(syscalls, sys_enter_bind) { return entered(args->fd, (u64)args->umyaddr, args->addrlen, 0); }

TRACEPOINT_PROBE(syscalls, sys_exit_bind)
{
    long result = args->ret;
    struct call call;
    struct sockaddr_any asked = {};
    returned(&call);
    if (!call.at) {  // its enter was not seen: nothing is known of it
        count_lost();
        return 0;
    }
    bpf_probe_read_user(&asked, call.c < 24 ? 16 : 24, (void *)call.b);
    u64 table = read64(read64(read64(bpf_get_current_task(), OFF_TASK_FILES), OFF_FILES_FDT), OFF_FDT_FD);
    u64 file = read64(table, (u32)call.a * 8), sk = 0;
    // "Bad descriptor", "not a socket": there is no socket to look at.
    if (result != -9 && result != -88)
        sk = read64(read64(file, OFF_FILE_DATA), OFF_SOCKET_SK);
    u16 family = sk ? read16(sk, OFF_SK_FAMILY) : asked.family;
    if (family != INET && family != INET6)
        return 0;
    struct event *event = told(&call, result);
    if (!event)
        return 0;
    struct bound *to = (struct bound *)event->detail;
    __builtin_memset(to, 0, sizeof(*to));
    to->family = asked.family == INET6 ? INET6 : INET;
    to->asked_port = __builtin_bswap16(asked.port);
    to->port = to->asked_port;
    if (to->family == INET6)
        __builtin_memcpy(to->address, asked.v6, 16);
    else
        __builtin_memcpy(to->address, asked.v4, 4);
    if (sk) {
        to->protocol = read16(sk, OFF_SK_PROTOCOL);
        to->device = read32(sk, OFF_SK_DEVICE);
        if (!result)
            to->port = read16(sk, OFF_SK_NUM);
    }
    events.ringbuf_submit(event, 0);
    return 0;
}
