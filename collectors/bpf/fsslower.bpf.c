// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Reads, writes, opens and fsyncs of files that took as long as the threshold (wanted.min_latency) or longer. What a
// call was about is looked at only when it was slow: the registers still hold its arguments. NR_... are numbers of calls.
#define DETAIL_BYTES 808
#include "event.h"
#include "path.h"

#ifdef OFF_REGS_ALL  // arm64: one array
#define OFF_REGS_2 (OFF_REGS_ALL + 8)
#endif
#define KIND_OF_FILE 0170000
#define REGULAR 0100000
#define DIRECTORY 0040000
#define INTERRUPTED -4
#define RESTARTED -512  // the kernel's own marks of a call that a signal ended lie below

enum { NONE, READ, WRITE, OPEN, FSYNC };  // collectors/trace/fsslower.py
#define AS_CALLED 2                       // in file_path.whole: the path that the caller gave
struct slow { s64 bytes; u32 operation, pad; char type[16]; struct file_path path; };

struct slot { u64 since; u32 pid; u32 pad; };
#include "slots.h"

static __always_inline u32 operation_of(u32 call)
{
    switch (call) {
    case NR_READ:
    case NR_PREAD64:
    case NR_READV:
    case NR_PREADV:
    case NR_PREADV2:
        return READ;
    case NR_WRITE:
    case NR_PWRITE64:
    case NR_WRITEV:
    case NR_PWRITEV:
    case NR_PWRITEV2:
        return WRITE;
    case NR_OPENAT:
    case NR_OPENAT2:
#ifdef NR_OPEN
    case NR_OPEN:
    case NR_CREAT:
#endif
        return OPEN;
    case NR_FSYNC:
    case NR_FDATASYNC:
        return FSYNC;
    }
    return NONE;
}

int tp_btf__sys_enter(u64 *ctx)
{
    if (!operation_of(ctx[1]))
        return 0;
    u32 tid = bpf_get_current_pid_tgid();
    struct slot *slot = slot_of(tid);
    if (!slot)
        return 0;
    if (slot->since && slot->pid != tid)
        count_lost();
    slot->pid = tid;
    slot->since = bpf_ktime_get_ns();
    return 0;
}

int tp_btf__sched_process_exit(u64 *ctx)
{
    forget(bpf_get_current_pid_tgid());
    return 0;
}

static __always_inline u64 file_of(u32 fd)
{
    u64 table = read64(read64(read64(bpf_get_current_task(), OFF_TASK_FILES), OFF_FILES_FDT), OFF_FDT_FD);
    return read64(table, (u64)fd * 8);
}

static __always_inline int ended(u64 registers, long result, u32 operation, u32 call, u64 took)
{
    u64 file = 0, name = 0, inode = 0;
    if (operation != OPEN)
        file = file_of(load64(registers, OFF_REGS_1));
    else if (result >= 0)
        file = file_of(result);
    else if (result == INTERRUPTED || result <= RESTARTED)
        return 0;  // who waited for the other end of a pipe, most likely
    if (file) {
        inode = read64(file, OFF_FILE_INODE);
        u16 kind = read16(inode, OFF_INODE_MODE) & KIND_OF_FILE;
        if (kind != REGULAR && kind != DIRECTORY)
            return 0;
    } else if (operation == OPEN) {
#ifdef NR_OPEN
        if (call == NR_OPEN || call == NR_CREAT)
            name = load64(registers, OFF_REGS_1);
        else
#endif
            name = load64(registers, OFF_REGS_2);
    } else {
        return 0;  // closed by another thread meanwhile
    }
    struct event *event = reserve();
    if (!event)
        return 0;
    fill_current(event);
    event->latency = took;
    event->result = result < 0 ? result : 0;
    struct slow *to = (struct slow *)event->detail;
    to->bytes = result > 0 && operation <= WRITE ? result : 0;
    to->operation = operation;
    to->pad = 0;
    __builtin_memset(to->type, 0, sizeof(to->type));
    if (file) {
        u64 type = read64(read64(inode, OFF_INODE_SB), OFF_SB_TYPE);
        bpf_probe_read_kernel_str(to->type, sizeof(to->type), (void *)read64(type, OFF_FS_NAME));
        walk_path(&to->path, file);
    } else {
        to->path.whole = AS_CALLED;
        to->path.length = 0;
        long n = bpf_probe_read_user_str(to->path.names, 256, (void *)name);
        if (n > 0)
            to->path.length = n;
    }
    submit(event);
    return 0;
}

int tp_btf__sys_exit(u64 *ctx)
{
    u64 registers = ctx[0];
    u32 call = load64(registers, OFF_REGS_CALL), operation = operation_of(call), tid;
    int zero = 0;
    if (!operation)
        return 0;
    tid = bpf_get_current_pid_tgid();
    struct slot *slot = slot_of(tid);
    struct wanted *w = wanted.lookup(&zero);
    if (!w || !slot || slot->pid != tid || !slot->since)
        return 0;
    u64 took = bpf_ktime_get_ns() - slot->since;
    slot->since = 0;
    if (took < w->min_latency)
        return 0;
    return ended(registers, ctx[1], operation, call, took);
}
