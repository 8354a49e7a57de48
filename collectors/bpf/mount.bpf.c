// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// What changes the mount tree: mount, umount, move_mount, pivot_root, and fsopen and fsmount, which make what
// move_mount places. Options (mount's data, fsconfig) are never read: passwords stand in them.
#define DETAIL_BYTES 312
#define CALLS 1024
#include "call.h"

enum { MOUNT, UMOUNT, MOVE_MOUNT, PIVOT_ROOT, FSOPEN, FSMOUNT };  // collectors/trace/mount.py
struct mounted {
    u64 flags;
    u32 operation;
    s32 from, to, fd;  // descriptors: where paths start from; what fsopen and fsmount gave
    char source[128], target[128], type[32];
};

static __always_inline int changed(long result, u32 operation)
{
    struct call call;
    u64 source = 0, target = 0, type = 0;
    returned(&call);
    struct event *event = told(&call, result);
    if (!event)
        return 0;
    struct mounted *to = (struct mounted *)event->detail;
    __builtin_memset(to, 0, sizeof(*to));
    to->operation = operation;
    to->from = to->to = to->fd = -1;
    if (operation == MOUNT) {
        source = call.a;
        target = call.b;
        type = call.c;
        to->flags = call.d;
    } else if (operation == MOVE_MOUNT) {
        source = call.a;
        target = call.b;
        to->from = call.c >> 32;
        to->to = call.c;
        to->flags = call.d;
    } else if (operation == FSMOUNT) {
        to->from = call.a;
        to->flags = call.d;
    } else if (operation == FSOPEN) {
        type = call.a;
        to->flags = call.d;
    } else {
        target = call.a;
        source = call.b;
        to->flags = call.d;
    }
    if (operation >= FSOPEN && result >= 0)
        to->fd = result;
    if (source)
        bpf_probe_read_user_str(to->source, sizeof(to->source), (void *)source);
    if (target)
        bpf_probe_read_user_str(to->target, sizeof(to->target), (void *)target);
    if (type)
        bpf_probe_read_user_str(to->type, sizeof(to->type), (void *)type);
    events.ringbuf_submit(event, 0);
    return 0;
}

TRACEPOINT_PROBE(syscalls, sys_enter_mount)
{
    return entered((u64)args->dev_name, (u64)args->dir_name, (u64)args->type, args->flags);
}
TRACEPOINT_PROBE(syscalls, sys_enter_umount) { return entered((u64)args->name, 0, 0, args->flags); }
TRACEPOINT_PROBE(syscalls, sys_enter_move_mount)
{
    u64 descriptors = (u64)args->from_dfd << 32 | (u32)args->to_dfd;
    return entered((u64)args->from_pathname, (u64)args->to_pathname, descriptors, args->flags);
}
TRACEPOINT_PROBE(syscalls, sys_enter_pivot_root) { return entered((u64)args->new_root, (u64)args->put_old, 0, 0); }
TRACEPOINT_PROBE(syscalls, sys_enter_fsopen) { return entered((u64)args->_fs_name, 0, 0, args->flags); }
TRACEPOINT_PROBE(syscalls, sys_enter_fsmount) { return entered(args->fs_fd, 0, 0, args->attr_flags); }

TRACEPOINT_PROBE(syscalls, sys_exit_mount) { return changed(args->ret, MOUNT); }
TRACEPOINT_PROBE(syscalls, sys_exit_umount) { return changed(args->ret, UMOUNT); }
TRACEPOINT_PROBE(syscalls, sys_exit_move_mount) { return changed(args->ret, MOVE_MOUNT); }
TRACEPOINT_PROBE(syscalls, sys_exit_pivot_root) { return changed(args->ret, PIVOT_ROOT); }
TRACEPOINT_PROBE(syscalls, sys_exit_fsopen) { return changed(args->ret, FSOPEN); }
TRACEPOINT_PROBE(syscalls, sys_exit_fsmount) { return changed(args->ret, FSMOUNT); }
