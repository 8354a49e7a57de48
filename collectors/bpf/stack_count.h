/* Values counted by whole stacks, in two buffers: one is filled while the other is read.
 *
 * A stack is stored once, under a 64-bit hash of all its addresses, so that two stacks never share a count (a stack
 * map keeps one stack for each slot and loses the others). Sizes come as -D constants:
 *   STACKS  distinct stacks, and distinct counts, in one buffer
 *   FRAMES  frames of one stack, at most 127 (what the kernel walks)
 */
#ifndef PERFSTREAM_STACK_COUNT_H
#define PERFSTREAM_STACK_COUNT_H

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

/* Ends a branch with something of its own: the compiler would else share the calls of both branches, through a
 * function pointer, which BPF has not. */
#define APART(name) asm volatile("# " name ::: "memory")

enum { CONTROL_ACTIVE, CONTROL_THRESHOLD, CONTROL_SIZE };
enum { LOST_STACKS, LOST_COUNTS, LOST_MISSED, LOST_SIZE };

BPF_HASH(counts0, struct count_key, struct count_value, STACKS);
BPF_HASH(counts1, struct count_key, struct count_value, STACKS);
BPF_HASH(stacks0, u64, struct stack, STACKS);
BPF_HASH(stacks1, u64, struct stack, STACKS);
BPF_ARRAY(control, u64, CONTROL_SIZE);
BPF_ARRAY(lost, u64, LOST_SIZE);
BPF_PERCPU_ARRAY(scratch, struct stack, 2);

static __always_inline void count_lost(u32 why)
{
    u64 *n = lost.lookup(&why);
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

/* Store the stack unless it is there; returns its hash, 0 for no stack, and sets *full when there was no room. */
static __always_inline u64 store_stack(u64 active, struct stack *s, int bytes, int *full)
{
    if (bytes <= 0)
        return 0;
    u64 h = hash_of(s, bytes);
    if (active) {
        if (!stacks1.lookup(&h) && stacks1.update(&h, s))
            *full = 1;
        APART("1");
    } else {
        if (!stacks0.lookup(&h) && stacks0.update(&h, s))
            *full = 1;
        APART("0");
    }
    return h;
}

static __always_inline struct count_value *value_of(u64 active, struct count_key *key)
{
    struct count_value fresh = {}, *v;
    bpf_get_current_comm(fresh.comm, sizeof(fresh.comm));
    if (active) {
        v = counts1.lookup_or_try_init(key, &fresh);
        APART("1");
    } else {
        v = counts0.lookup_or_try_init(key, &fresh);
        APART("0");
    }
    return v;
}

/* Take the current task's stacks and add ``sum`` to their count. Returns the bytes of the user stack. */
static __always_inline int count_stacks(void *ctx, u64 sum, int user_only_tasks)
{
    u32 zero = 0, one = 1, at = CONTROL_ACTIVE;
    struct stack *user = scratch.lookup(&zero);
    struct stack *kernel = scratch.lookup(&one);
    u64 *active = control.lookup(&at);
    if (!user || !kernel || !active)
        return 0;
    u64 buffer = *active;
    int full = 0;
    int user_bytes = bpf_get_stack(ctx, user->ips, sizeof(user->ips), BPF_F_USER_STACK);
    if (user_only_tasks && user_bytes <= 0)
        return user_bytes;
    int kernel_bytes = bpf_get_stack(ctx, kernel->ips, sizeof(kernel->ips), 0);
    struct count_key key = {};
    key.user = store_stack(buffer, user, user_bytes, &full);
    key.kernel = store_stack(buffer, kernel, kernel_bytes, &full);
    key.cgroup = bpf_get_current_cgroup_id();
    key.tgid = bpf_get_current_pid_tgid() >> 32;
    if (full) {
        count_lost(LOST_STACKS);
        return user_bytes;
    }
    struct count_value *v = value_of(buffer, &key);
    if (!v) {
        count_lost(LOST_COUNTS);
        return user_bytes;
    }
    __sync_fetch_and_add(&v->count, 1);
    __sync_fetch_and_add(&v->sum, sum);
    return user_bytes;
}

#endif
