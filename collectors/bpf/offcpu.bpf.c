/* Off-CPU time of threads that blocked for longer than a threshold, by their stacks.
 * Driven by collectors/profile/offcpu.py, whose header says how and why.
 *   SLOTS  see slots.h */
#include <uapi/linux/ptrace.h>
#include "stack_count.h"
#include "cost.h"
#include "task.h"

#define BLOCKED 3         /* TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE; runnable, stopped and traced are not waiting */
#define IDLING 0x400      /* TASK_NOLOAD: kernel threads with nothing to do */
#define DYING 0x80        /* TASK_DEAD */
#define KERNEL_THREAD (~0ULL)

struct slot {
    u64 since; /* 0: on CPU or not blocked */
    u32 pid;
    u32 pad;
};
#include "slots.h"

struct waiting {
    u64 blocked_ns;
    u64 tid; /* 0: nobody */
};

BPF_PERCPU_ARRAY(waiting, struct waiting, 1);
/* A ring buffer has one interrupt to raise: while it is on its way on one CPU, another CPU's is swallowed. */
BPF_RINGBUF_OUTPUT(kick_0, KICK_PAGES);
BPF_RINGBUF_OUTPUT(kick_1, KICK_PAGES);
BPF_RINGBUF_OUTPUT(kick_2, KICK_PAGES);
BPF_RINGBUF_OUTPUT(kick_3, KICK_PAGES);

/* Nothing is sent: giving the record back with a wake-up raises an interrupt on this CPU, which is taken when
 * interrupts are on again, in the context of the thread that comes in now. */
static __always_inline void raise_interrupt(void)
{
    void *record;
    switch (bpf_get_smp_processor_id() & 3) {
    case 0:
        if ((record = kick_0.ringbuf_reserve(8)))
            kick_0.ringbuf_discard(record, BPF_RB_FORCE_WAKEUP);
        break;
    case 1:
        if ((record = kick_1.ringbuf_reserve(8)))
            kick_1.ringbuf_discard(record, BPF_RB_FORCE_WAKEUP);
        break;
    case 2:
        if ((record = kick_2.ringbuf_reserve(8)))
            kick_2.ringbuf_discard(record, BPF_RB_FORCE_WAKEUP);
        break;
    default:
        if ((record = kick_3.ringbuf_reserve(8)))
            kick_3.ringbuf_discard(record, BPF_RB_FORCE_WAKEUP);
    }
}

/* The scheduler's own clock, in ns: it has just been set, and costs no read of the time. It may be some microseconds
 * behind, and CPUs may differ by as much: little, where waits of a millisecond are counted. */
static __always_inline u64 scheduler_clock(u64 task)
{
#if OFF_RUNQUEUE_CLOCK >= 0 && OFF_TASK_CFS_RQ >= 0 && OFF_CFS_RQ_RQ >= 0
    return load64(load64(load64(task, OFF_TASK_CFS_RQ), OFF_CFS_RQ_RQ), OFF_RUNQUEUE_CLOCK);
#else
    return bpf_ktime_get_ns();
#endif
}

/* By BTF, for two reasons: it is cheaper, and a classic tracepoint's programs are skipped on a CPU on which somebody
 * is in the middle of reading a map. */
static __always_inline void switched(u64 *ctx)
{
    u32 zero = 0, tid = load32(ctx[1], OFF_TASK_PID), next = load32(ctx[2], OFF_TASK_PID);
    u64 now = scheduler_clock(ctx[2]);

    if (tid) {
        u32 state = ctx[0] ? 0 : (u32)ctx[3]; /* preempted: it can run */
        struct slot *s = slot_of(tid);
        if (s && state & DYING) {
            if (s->pid == tid)
                s->since = 0;
        } else if (s && state & BLOCKED && !(state & IDLING)) {
            if (s->pid != tid) {
                if (s->since && s->since != KERNEL_THREAD)
                    count_lost(LOST_MISSED);
                s->pid = tid;
                s->since = now;
            } else if (s->since != KERNEL_THREAD) {
                s->since = now;
            }
        }
    }

    if (!next)
        return;
    struct slot *s = slot_of(next);
    if (!s || s->pid != next || !s->since || s->since == KERNEL_THREAD)
        return;
    u64 blocked = now > s->since ? now - s->since : 0;
    s->since = 0;
    u64 *threshold = control_word(CONTROL_THRESHOLD), *period = control_word(CONTROL_PERIOD);
    if (!threshold || !period || blocked < *threshold)
        return;
    /* A wait shorter than the period is taken with the probability wait / period and then stands for a period. */
    if (blocked < *period) {
        if (((u64)bpf_get_prandom_u32() * *period >> 32) >= blocked)
            return;
        blocked = *period;
    }
    struct waiting *w = waiting.lookup(&zero);
    if (!w)
        return;
    if (w->tid) /* the one before was switched out again before its interrupt came */
        count_lost(LOST_MISSED);
    w->tid = next;
    w->blocked_ns = blocked;
    raise_interrupt();
}

int tp_btf__sched_switch(u64 *ctx)
{
    u64 began = cost_begin();
    switched(ctx);
    cost_end(began);
    return 0;
}

static __always_inline void interrupted(u64 *ctx)
{
    u32 zero = 0;
    struct waiting *w = waiting.lookup(&zero);
    if (!w || !w->tid)
        return;
    u32 tid = bpf_get_current_pid_tgid();
    u64 expected = w->tid, blocked = w->blocked_ns;
    w->tid = 0;
    if (tid != expected) {
        count_lost(LOST_MISSED);
        return;
    }
    if (count_stacks(ctx, blocked, 1) <= 0) {
        /* Without user memory: a kernel thread. Its waits are the kernel's own idling; do not look again. */
        struct slot *s = slot_of(tid);
        if (s && s->pid == tid)
            s->since = KERNEL_THREAD;
    }
}

int tp_btf__irq_work_entry(u64 *ctx)
{
    u64 began = cost_begin();
    interrupted(ctx);
    cost_end(began);
    return 0;
}
