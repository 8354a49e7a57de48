// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Latency histograms counted in the kernel, keyed by (tgid, operation, kind, bucket).
//
// Two buffers: user space switches `control[BUFFER]`, waits until nobody uses the other one, and drains that.
// So no count is ever added to an element that has been read: what was drained plus what was lost is what happened.
//
// With `control[SHIFT]` above 0 one event in 2^shift is taken, at random, and counts 2^shift times: sums stay right on
// average. The weight is drawn where an event begins and belongs to it, so a change between its ends does no harm.
#ifndef PERFSTREAM_LATENCY_H
#define PERFSTREAM_LATENCY_H

#include "buffers.h"
#include "histogram.h"
#include "task.h"
#include "wanted.h"

#ifndef HIST_ENTRIES
#define HIST_ENTRIES 16384
#endif

struct hist_key { u32 tgid; u32 op; u16 bucket; u16 kind; };
struct hist_value { u64 count; u64 sum; u64 max; };
struct name { char comm[16]; u64 cgroup; };

BPF_HASH(hist_0, struct hist_key, struct hist_value, HIST_ENTRIES);
BPF_HASH(hist_1, struct hist_key, struct hist_value, HIST_ENTRIES);
enum { BUFFER, SHIFT, CONTROL_WORDS };
BPF_ARRAY(control, u32, CONTROL_WORDS);
struct gap { u32 left; u32 shift; };
BPF_PERCPU_ARRAY(gaps, struct gap, 1);
BPF_PERCPU_ARRAY(lost, u64, 1);
BPF_TABLE("lru_hash", u32, struct name, names, 8192);

static __always_inline void count_lost(void)
{
    int zero = 0;
    u64 *counter = lost.lookup(&zero);
    if (counter)
        *counter += 1;
}

// How many events the one that begins now stands for; 0 when it is not taken. Not a draw for each event but for the gap
// to the next one, whose mean is 2^shift: that costs a decrement, and the sums are right on average all the same.
static __always_inline u32 draw_weight(void)
{
    int index = SHIFT, zero = 0;
    u32 *shift = control.lookup(&index);
    if (!shift || !*shift)
        return 1;
    struct gap *gap = gaps.lookup(&zero);
    if (!gap)
        return 1;
    u32 weight = 1u << (*shift & 15);
    if (gap->shift != *shift) {  // somewhere in a gap
        gap->shift = *shift;
        gap->left = bpf_get_prandom_u32() & (weight - 1);
    }
    if (gap->left) {
        gap->left--;
        return 0;
    }
    u32 drawn = bpf_get_prandom_u32();
    gap->left = (drawn & (weight - 1)) + (drawn >> 16 & (weight - 1));
    return weight;
}

static __always_inline void hist_bump(struct hist_value *value, u64 ns, u64 weight)
{
    __sync_fetch_and_add(&value->count, weight);
    __sync_fetch_and_add(&value->sum, ns * weight);
    // Two CPUs in the same bucket in the same nanoseconds may keep the smaller: at most 1/16 less than the truth.
    if (value->max < ns)
        value->max = ns;
}

// Returns 1 when the key is new: the caller then stores the process's name.
static __always_inline int hist_add(u32 tgid, u32 op, u16 kind, u64 ns, u64 weight)
{
    struct hist_key key = {.tgid = tgid, .op = op, .kind = kind, .bucket = bucket_of(ns)};
    struct hist_value *value, first = {.count = weight, .sum = ns * weight, .max = ns};
    int index = BUFFER;
    u32 second, *active = control.lookup(&index);
    u64 *inside = active ? count_in(active, &second) : 0;
    if (!inside)
        return 0;
    if (second) {
        value = hist_1.lookup(&key);
        if (!value) {
            if (!hist_1.insert(&key, &first)) {
                count_out(inside);
                return 1;
            }
            value = hist_1.lookup(&key);  // another CPU was first, or the map is full
        }
    } else {
        value = hist_0.lookup(&key);
        if (!value) {
            if (!hist_0.insert(&key, &first)) {
                count_out(inside);
                return 1;
            }
            value = hist_0.lookup(&key);
        }
    }
    if (value)
        hist_bump(value, ns, weight);
    else
        count_lost();
    count_out(inside);
    return 0;
}

// Only called for a new key, so its cost does not matter.
static __always_inline void remember(u32 tgid, u64 task)
{
    struct name name = {};
    u64 cgroup = read64(read64(task, OFF_TASK_CGROUPS), OFF_CSS_SET_DFL_CGRP);
    bpf_probe_read_kernel(name.comm, sizeof(name.comm), (void *)(read64(task, OFF_TASK_LEADER) + OFF_TASK_COMM));
    name.cgroup = read64(read64(cgroup, OFF_CGROUP_KN), OFF_KN_ID);
    names.update(&tgid, &name);
}

#endif
