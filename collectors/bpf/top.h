// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Rows of one interval, counted by a key of the gadget's own in two buffers (see buffers.h). The gadget defines, before
// this: struct row_key, whose first member is `u32 tgid`, and VALUES, how many numbers a row has.
#ifndef PERFSTREAM_TOP_H
#define PERFSTREAM_TOP_H

#include "buffers.h"
#include "task.h"
#include "wanted.h"

#ifndef ROWS
#define ROWS 8192
#endif

struct row_value { u64 n[VALUES]; };
struct who { char comm[16]; u64 cgroup; u32 uid; u32 pad; };

BPF_HASH(rows_0, struct row_key, struct row_value, ROWS);
BPF_HASH(rows_1, struct row_key, struct row_value, ROWS);
BPF_ARRAY(control, u32, 1);
BPF_PERCPU_ARRAY(lost, u64, 1);
BPF_TABLE("lru_hash", u32, struct who, names, 8192);

static __always_inline void count_lost(void)
{
    int zero = 0;
    u64 *counter = lost.lookup(&zero);
    if (counter)
        *counter += 1;
}

// Who runs now, by its process: the names of threads would split it.
static __always_inline void remember(void)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    struct who who = {.cgroup = bpf_get_current_cgroup_id(), .uid = bpf_get_current_uid_gid()};
    u64 leader = read64(bpf_get_current_task(), OFF_TASK_LEADER);
    bpf_probe_read_kernel(who.comm, sizeof(who.comm), (void *)(leader + OFF_TASK_COMM));
    names.update(&tgid, &who);
}

static __always_inline int is_mine(void)
{
#ifdef FILTERED
    char comm[16] = {};
    u64 leader = read64(bpf_get_current_task(), OFF_TASK_LEADER);
    bpf_probe_read_kernel(comm, sizeof(comm), (void *)(leader + OFF_TASK_COMM));
    return is_wanted(bpf_get_current_pid_tgid() >> 32, bpf_get_current_uid_gid(), comm, 1, ~0ULL);
#else
    return 1;
#endif
}

// Add to a row. Returns 1 when it is new: the caller then stores who it is, if it has not yet.
static __always_inline int count_row(struct row_key *key, struct row_value *more)
{
    int zero = 0, added = 0;
    u32 second, *active = control.lookup(&zero);
    u64 *inside = active ? count_in(active, &second) : 0;
    struct row_value *row;
    if (!inside)
        return 0;
    if (second) {
        row = rows_1.lookup(key);
        if (!row) {
            added = !rows_1.insert(key, more);
            row = added ? 0 : rows_1.lookup(key);  // another CPU was first, or the map is full
        }
    } else {
        row = rows_0.lookup(key);
        if (!row) {
            added = !rows_0.insert(key, more);
            row = added ? 0 : rows_0.lookup(key);
        }
    }
    if (row) {
#pragma unroll
        for (int i = 0; i < VALUES; i++)
            if (more->n[i])
                __sync_fetch_and_add(&row->n[i], more->n[i]);
    } else if (!added) {
        count_lost();
    }
    count_out(inside);
    return added;
}

#endif
