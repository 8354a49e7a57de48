// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// How long each run of a soft interrupt's handler took, by vector. They do not nest on a CPU.
#include "cost.h"
#include "latency.h"
#include "interrupt.h"

int tp_btf__softirq_entry(u64 *ctx)
{
    u64 began = cost_begin();
    interrupt_began(ctx[0]);
    cost_end(began);
    return 0;
}

int tp_btf__softirq_exit(u64 *ctx)
{
    u64 began = cost_begin();
    interrupt_ended(ctx[0]);
    cost_end(began);
    return 0;
}
