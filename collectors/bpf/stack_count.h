/* Values counted by whole stacks, in two buffers: one is filled while the other is read.
 *
 * A stack is stored once, under a 64-bit hash of all its addresses, so that two stacks never share a count (a stack
 * map keeps one stack for each slot and loses the others). Sizes come as -D constants:
 *   STACKS  distinct stacks, and distinct counts, in one buffer
 *   FRAMES  frames of one stack, at most 127 (what the kernel walks)
 */
#ifndef PERFSTREAM_STACK_COUNT_H
#define PERFSTREAM_STACK_COUNT_H

#include "buffers.h"
#include "wanted.h"

#ifndef STACKS
#define STACKS 4096
#endif
#ifndef FRAMES
#define FRAMES 127
#endif

struct count_key {
    u64 user;   /* hash of the user stack, 0: none */
    u64 kernel; /* hash of the kernel stack, 0: none */
    u64 cgroup;
    u64 tgid;
};

struct count_value {
    u64 count;
    u64 sum;
    char comm[16];
};

struct stack {
    u64 ips[FRAMES]; /* leaf first, zeros after the root */
};

enum { CONTROL_ACTIVE, CONTROL_THRESHOLD, CONTROL_PERIOD, CONTROL_SIZE };
enum { LOST_STACKS, LOST_COUNTS, LOST_MISSED, LOST_SIZE };

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

/* 0: it is there now */
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

static __always_inline void count_lost(u32 why)
{
    u64 *n = lost_counter(why);
    if (n)
        __sync_fetch_and_add(n, 1);
}

static __always_inline u64 hash_of(struct stack *s, int bytes)
{
    u64 h = 0x9e3779b97f4a7c15ULL;
    int n = bytes / 8;
#pragma clang loop unroll(disable)
    for (int i = 0; i < FRAMES; i++) {
        if (i >= n)
            break;
        h = (h ^ s->ips[i]) * 0xff51afd7ed558ccdULL;
        h ^= h >> 32;
    }
    return h | 1;
}

/* Take the current task's stacks and add ``sum`` to their count. Returns the bytes of the user stack; with
 * ``user_tasks_only`` nothing is counted when there is none. */
static __always_inline int count_stacks(void *ctx, u64 sum, int user_tasks_only)
{
    struct stack *user = scratch_stack(0), *kernel = scratch_stack(1);
    u64 *active = control_word(CONTROL_ACTIVE);
    if (!user || !kernel || !active)
        return 0;
    if (!wanted_process())
        return 1; /* of another process: it may well have a user stack */
    int user_bytes = bpf_get_stack(ctx, user->ips, sizeof(user->ips), BPF_F_USER_STACK);
    if (user_tasks_only && user_bytes <= 0)
        return user_bytes;
    int kernel_bytes = bpf_get_stack(ctx, kernel->ips, sizeof(kernel->ips), 0);
    struct count_key key = {};
    int full = 0;
    u32 buffer;
    u64 *inside = count_in((volatile u32 *)active, &buffer); /* the word's low half: little endian */
    if (!inside)
        return user_bytes;
    if (user_bytes > 0) {
        key.user = hash_of(user, user_bytes);
        full |= keep_stack(buffer, key.user, user);
    }
    if (kernel_bytes > 0) {
        key.kernel = hash_of(kernel, kernel_bytes);
        full |= keep_stack(buffer, key.kernel, kernel);
    }
    if (full) {
        count_lost(LOST_STACKS);
        count_out(inside);
        return user_bytes;
    }
    key.cgroup = bpf_get_current_cgroup_id();
    key.tgid = bpf_get_current_pid_tgid() >> 32;
    struct count_value fresh = {};
    bpf_get_current_comm(fresh.comm, sizeof(fresh.comm));
    struct count_value *v = value_of(buffer, &key, &fresh);
    if (v) {
        __sync_fetch_and_add(&v->count, 1);
        __sync_fetch_and_add(&v->sum, sum);
    } else {
        count_lost(LOST_COUNTS);
    }
    count_out(inside);
    return user_bytes;
}

#endif
