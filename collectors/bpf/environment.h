// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// The variables that name a service, from the environment that a process has just been given. Every string is looked at
// here; the values of these three alone leave the kernel (collectors/trace/exec.py).
#ifndef PERFSTREAM_ENVIRONMENT_H
#define PERFSTREAM_ENVIRONMENT_H

#include "task.h"

#define STRINGS 512
#define STRING_ROOM 2048
#define NAME_ROOM 128
#define ATTRIBUTES_ROOM 640

// UNREAD: not to its end, for want of room or of a page; what it would have said is not known.
enum { UNREAD, SAYS_NOTHING, SAYS };

struct variables {
    u64 at;
    u32 pid, pad;
    char service[NAME_ROOM];
    char attributes[ATTRIBUTES_ROOM];
    char application[NAME_ROOM];
};
struct environment { u32 found, cut, inside, pad; struct variables said; char text[STRING_ROOM]; };

BPF_PERCPU_ARRAY(environments, struct environment, 1);
BPF_RINGBUF_OUTPUT(services, 256);

#define WORD(a, b, c, d, e, f, g, h)                                                                                   \
    ((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 | (u64)(f) << 40 | (u64)(g) << 48     \
     | (u64)(h) << 56)

static __always_inline u64 word(const char *text, int index) { return *(volatile u64 *)(text + index * 8); }

static __always_inline void keep(struct environment *e, char *to, int room, u64 from, long length)
{
    e->found = 1;
    if (length > room)
        e->cut = 1;
    else
        bpf_probe_read_user_str(to, room, (void *)from);
}

// Look at one string of `n` bytes with its end, which stands at `at`.
static __always_inline void look(struct environment *e, u64 at, long n)
{
    char *text = e->text;
    u64 first = word(text, 0);
    if (first == WORD('O', 'T', 'E', 'L', '_', 'S', 'E', 'R')) {
        if (n > 18 && word(text, 1) == WORD('V', 'I', 'C', 'E', '_', 'N', 'A', 'M') && text[16] == 'E'
            && text[17] == '=')
            keep(e, e->said.service, NAME_ROOM, at + 18, n - 18);
    } else if (first == WORD('O', 'T', 'E', 'L', '_', 'R', 'E', 'S')) {
        if (n > 25 && word(text, 1) == WORD('O', 'U', 'R', 'C', 'E', '_', 'A', 'T')
            && word(text, 2) == WORD('T', 'R', 'I', 'B', 'U', 'T', 'E', 'S') && text[24] == '=')
            keep(e, e->said.attributes, ATTRIBUTES_ROOM, at + 25, n - 25);
    } else if (first == WORD('P', 'Y', 'R', 'O', 'S', 'C', 'O', 'P')) {
        if (n > 27 && word(text, 1) == WORD('E', '_', 'A', 'P', 'P', 'L', 'I', 'C')
            && word(text, 2) == WORD('A', 'T', 'I', 'O', 'N', '_', 'N', 'A') && text[24] == 'M' && text[25] == 'E'
            && text[26] == '=')
            keep(e, e->said.application, NAME_ROOM, at + 27, n - 27);
    }
}

// Read the environment of `task`, whose memory must be the current one. What it says goes out under (pid, now).
static __always_inline int read_environment(u64 task, u32 pid, u64 now)
{
    int zero = 0;
    struct environment *e = environments.lookup(&zero);
    u64 memory = read64(task, OFF_TASK_MM);
    u64 at = read64(memory, OFF_MM_ENV_START), end = read64(memory, OFF_MM_ENV_END);
    if (!e || !memory)
        return UNREAD;
    e->found = e->cut = e->inside = 0;
    __builtin_memset(&e->said, 0, sizeof(e->said));
    e->said.at = now;
    e->said.pid = pid;
#pragma clang loop unroll(disable)
    for (int i = 0; i < STRINGS && at < end; i++) {
        long n = bpf_probe_read_user_str(e->text, STRING_ROOM, (void *)at);
        if (n <= 0)
            return UNREAD;
        if (!e->inside)
            look(e, at, n);
        // A string without an end goes on where its piece ends.
        e->inside = n == STRING_ROOM;
        at += n - e->inside;
    }
    if (at < end || e->cut)
        return UNREAD;
    if (!e->found)
        return SAYS_NOTHING;
    return services.ringbuf_output(&e->said, sizeof(e->said), 0) ? UNREAD : SAYS;
}

#endif
