/* CPU profile: one sample at each tick of a perf event on each CPU, the idle task left out.
 * Driven by collectors/profile_cpu.py. */
#include <uapi/linux/ptrace.h>
#include <uapi/linux/bpf_perf_event.h>
#include "stack_count.h"
#define COST_EVERY 1  /* few runs, and long ones */
#include "cost.h"

BPF_HASH(counts0, struct count_key, struct count_value, STACKS);
BPF_HASH(counts1, struct count_key, struct count_value, STACKS);
BPF_HASH(stacks0, u64, struct stack, STACKS);
BPF_HASH(stacks1, u64, struct stack, STACKS);
BPF_ARRAY(control, u64, CONTROL_SIZE);
BPF_ARRAY(lost, u64, LOST_SIZE);
BPF_PERCPU_ARRAY(scratch, struct stack, 2);

static __always_inline u64 *control_word(u32 index) { return control.lookup(&index); }
static __always_inline u64 *lost_counter(u32 why) { return lost.lookup(&why); }
static __always_inline struct stack *scratch_stack(u32 index) { return scratch.lookup(&index); }

static __always_inline int keep_stack(u64 buffer, u64 hash, struct stack *s)
{
    if (buffer) {
        if (stacks1.lookup(&hash))
            return 0;
        return stacks1.update(&hash, s) != 0;
    }
    if (stacks0.lookup(&hash))
        return 0;
    return stacks0.update(&hash, s) != 0;
}

static __always_inline struct count_value *value_of(u64 buffer, struct count_key *key, struct count_value *fresh)
{
    if (buffer)
        return counts1.lookup_or_try_init(key, fresh);
    return counts0.lookup_or_try_init(key, fresh);
}

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
