/* CPU profile: one sample at each tick of a perf event on each CPU, the idle task left out.
 * Driven by collectors/profile/cpu.py. */
#include <uapi/linux/ptrace.h>
#include <uapi/linux/bpf_perf_event.h>
#include "stack_count.h"
#define COST_EVERY 1  /* few runs, and long ones */
#include "cost.h"

static __always_inline void sampled(struct bpf_perf_event_data *ctx)
{
    if (!(u32)bpf_get_current_pid_tgid())
        return;
    count_stacks(ctx, 1, 0);
}

int perf_event__cpu_clock(struct bpf_perf_event_data *ctx)
{
    u64 began = cost_begin();
    sampled(ctx);
    cost_end(began);
    return 0;
}
