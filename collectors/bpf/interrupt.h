// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// One interrupt handler's run on each CPU, as a latency of the kernel's own (process 0), whoever was interrupted.
struct running { u64 since; u32 number; u32 weight; };
BPF_PERCPU_ARRAY(running, struct running, 1);

static __always_inline void interrupt_began(u32 number)
{
    int zero = 0;
    u32 weight = draw_weight();
    struct running *now = running.lookup(&zero);
    if (!now)
        return;
    now->weight = weight;
    now->number = number;
    now->since = weight ? bpf_ktime_get_ns() : 0;
}

static __always_inline void interrupt_ended(u32 number)
{
    int zero = 0;
    struct running *now = running.lookup(&zero);
    if (!now || !now->since || now->number != number)
        return;
    u64 took = bpf_ktime_get_ns() - now->since;
    now->since = 0;
    if (hist_add(0, number, 0, took, now->weight)) {
        u32 nobody = 0;
        struct name name = {.comm = "kernel"};
        names.update(&nobody, &name);
    }
}
