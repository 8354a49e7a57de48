// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// What programs cost, told by themselves: one run in COST_EVERY is timed. The kernel's own account (BPF_ENABLE_STATS)
// asks for CAP_SYS_ADMIN and adds 80 ns to every run; this adds a few. COST_EVERY is odd, so that two programs that
// take turns are both timed.
#ifndef PERFSTREAM_COST_H
#define PERFSTREAM_COST_H

#ifndef COST_EVERY
#define COST_EVERY 61
#endif
#define COST_ENTRY 25      // ns: getting into a program and out again, so that the sum is that of the account
#define COST_MOST 1000000  // ns; a run that took longer was interrupted by something else

struct cost { u64 left; u64 ns; };
BPF_PERCPU_ARRAY(cost, struct cost, 1);

// The time now when this run is one of those that are timed, else 0.
static __always_inline u64 cost_begin(void)
{
    int zero = 0;
    struct cost *c = cost.lookup(&zero);
    if (!c || ++c->left < COST_EVERY)
        return 0;
    c->left = 0;
    return bpf_ktime_get_ns();
}

static __always_inline void cost_end(u64 began)
{
    if (!began)
        return;
    int zero = 0;
    struct cost *c = cost.lookup(&zero);
    u64 took = bpf_ktime_get_ns() - began;
    if (!c || took > COST_MOST)
        return;
    c->ns += (took + COST_ENTRY) * COST_EVERY;
}

#endif
