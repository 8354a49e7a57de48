// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// The path of an open file in its mount namespace: names from the leaf to the root, each with its end, as far as they
// fit. No lock is held while it is walked: a file that is renamed in that moment may get a mixture.
#ifndef PERFSTREAM_PATH_H
#define PERFSTREAM_PATH_H

#include "task.h"

#define PATH_ROOM 512  // a power of two
#define PATH_DEPTH 24

// `length` bytes of `names` hold names; `whole`: the walk arrived at the root.
struct file_path { u32 length; u32 whole; char names[PATH_ROOM + 256]; };

static __always_inline void walk_path(struct file_path *to, u64 file)
{
    u64 dentry = read64(file, OFF_FILE_DENTRY), mount = read64(file, OFF_FILE_MNT) - OFF_MOUNT_MNT;
    // How far it has come stands in memory: in a register the verifier would look at each length apart, for 0.2 s.
    volatile u32 *at = &to->length;
    *at = 0;
    to->whole = 0;
#pragma clang loop unroll(disable)
    for (int i = 0; i < PATH_DEPTH; i++) {
        u64 parent = read64(dentry, OFF_DENTRY_PARENT);
        if (parent == dentry || dentry == read64(mount + OFF_MOUNT_MNT, OFF_VFSMOUNT_ROOT)) {
            u64 above = read64(mount, OFF_MOUNT_PARENT);
            if (above == mount || !above) {
                to->whole = 1;
                break;
            }
            dentry = read64(mount, OFF_MOUNT_POINT);
            mount = above;
            continue;
        }
        u32 from = *at;
        if (from >= PATH_ROOM)
            break;
        int bytes = bpf_probe_read_kernel_str(&to->names[from & (PATH_ROOM - 1)], 256,
                                              (void *)read64(dentry, OFF_DENTRY_NAME));
        if (bytes <= 1)
            break;
        *at = from + bytes;
        dentry = parent;
    }
}

#endif
