// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// What a thread has begun and not ended, found by its number without hashing: SLOTS (a power of two, 8 or more) slots.
// Before this: struct slot with `u64 since`, 0 for nothing begun, and `u32 pid`, whose slot it is. Two threads share a
// slot only where their numbers differ by a multiple of SLOTS.
//
// Neighbours by number are 8 slots apart, so never in one line of a CPU's cache, nor in one pair of lines: threads that
// were started one after the other run on different CPUs, which would take the line from each other at every event.
#ifndef PERFSTREAM_SLOTS_H
#define PERFSTREAM_SLOTS_H

#define SLOTS_APART 8

BPF_ARRAY(slots, struct slot, SLOTS);

static __always_inline struct slot *slot_of(u32 pid)
{
    int index = (pid * SLOTS_APART + (pid & (SLOTS - 1)) / (SLOTS / SLOTS_APART)) & (SLOTS - 1);
    return slots.lookup(&index);
}

// A thread that ends in the middle must leave nothing to the next one with its number.
static __always_inline void forget(u32 pid)
{
    struct slot *slot = slot_of(pid);
    if (slot && slot->pid == pid)
        slot->since = 0;
}

#endif
