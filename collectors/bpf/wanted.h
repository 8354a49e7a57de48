// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Which events a live gadget wants (collectors/wanted.py); only compiled in with -DFILTERED, so that the agent pays nothing.
#ifndef PERFSTREAM_WANTED_H
#define PERFSTREAM_WANTED_H

#ifdef FILTERED
enum { WANT_PID = 1, WANT_UID = 2, WANT_COMM = 4, WANT_FAILED = 8, WANT_SLOW = 16 };
struct wanted { u64 min_latency; u32 flags, pid, uid, pad; char comm[16]; };
BPF_ARRAY(wanted, struct wanted, 1);

static __always_inline int same_comm(const char *one, const char *other)
{
    for (int i = 0; i < 16; i++) {
        if (one[i] != other[i])
            return 0;
        if (!one[i])
            return 1;
    }
    return 1;
}

static __always_inline int is_wanted(u32 pid, u32 uid, const char *comm, s32 result, u64 latency)
{
    int zero = 0;
    struct wanted *w = wanted.lookup(&zero);
    if (!w)
        return 1;
    return !(w->flags & WANT_PID && w->pid != pid) && !(w->flags & WANT_UID && w->uid != uid)
        && !(w->flags & WANT_FAILED && !result) && !(w->flags & WANT_SLOW && latency < w->min_latency)
        && !(w->flags & WANT_COMM && !same_comm(w->comm, comm));
}

// The same of who runs now, for what is asked before there is an event.
static __always_inline int wanted_now(s32 result, u64 latency)
{
    char comm[16] = {};
    bpf_get_current_comm(comm, sizeof(comm));
    return is_wanted(bpf_get_current_pid_tgid() >> 32, bpf_get_current_uid_gid(), comm, result, latency);
}
#else
static __always_inline int wanted_now(s32 result, u64 latency) { return 1; }
#endif

// Of what is counted and neither fails nor has a length of its own.
static __always_inline int wanted_process(void) { return wanted_now(1, ~0ULL); }

#endif
