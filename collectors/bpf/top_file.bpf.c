// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Reads and writes of regular files that moved bytes, by process and file. One program where system calls end: the
// registers still say what was called with which descriptor. NR_... are the numbers of the calls on this machine.
struct row_key { unsigned int tgid, dev; unsigned long long inode; };
#define VALUES 4
enum { READS, WRITES, READ_BYTES, WRITTEN_BYTES };
#include "top.h"
#include "path.h"

struct inode_key { u64 inode; u32 dev; u32 pad; };
BPF_TABLE("lru_hash", struct inode_key, struct file_path, paths, PATHS);
BPF_PERCPU_ARRAY(scratch, struct file_path, 1);

#ifdef OFF_REGS_ALL  // arm64: one array
#define OFF_REGS_2 (OFF_REGS_ALL + 8)
#define OFF_REGS_3 (OFF_REGS_ALL + 16)
#endif
#define S_IFMT_ 0170000
#define S_IFREG_ 0100000

static __always_inline void moved(u64 fd, u64 bytes, int written)
{
    u64 table = read64(read64(read64(bpf_get_current_task(), OFF_TASK_FILES), OFF_FILES_FDT), OFF_FDT_FD);
    u64 file = read64(table, (u32)fd * 8), inode = read64(file, OFF_FILE_INODE);
    if ((read16(inode, OFF_INODE_MODE) & S_IFMT_) != S_IFREG_)
        return;
    struct row_key key = {.tgid = bpf_get_current_pid_tgid() >> 32, .inode = read64(inode, OFF_INODE_NUMBER)};
    struct row_value more = {};
    key.dev = read32(read64(inode, OFF_INODE_SB), OFF_SB_DEV);
    if (written) {
        more.n[WRITES] = 1;
        more.n[WRITTEN_BYTES] = bytes;
    } else {
        more.n[READS] = 1;
        more.n[READ_BYTES] = bytes;
    }
    if (!count_row(&key, &more))
        return;
    remember();
    int zero = 0;
    struct inode_key which = {.inode = key.inode, .dev = key.dev};
    struct file_path *path = scratch.lookup(&zero);
    if (!path)
        return;
    walk_path(path, file);
    paths.update(&which, path);
}

int tp_btf__sys_exit(u64 *ctx)
{
    u64 registers = ctx[0];
    s64 bytes = ctx[1];
    if (bytes <= 0)
        return 0;
    switch (load64(registers, OFF_REGS_CALL) & 0xffffffff) {
    case NR_READ:
    case NR_PREAD64:
    case NR_READV:
    case NR_PREADV:
    case NR_PREADV2:
        if (is_mine())
            moved(load64(registers, OFF_REGS_1), bytes, 0);
        break;
    case NR_WRITE:
    case NR_PWRITE64:
    case NR_WRITEV:
    case NR_PWRITEV:
    case NR_PWRITEV2:
        if (is_mine())
            moved(load64(registers, OFF_REGS_1), bytes, 1);
        break;
    case NR_SENDFILE:
        if (is_mine()) {
            moved(load64(registers, OFF_REGS_1), bytes, 1);
            moved(load64(registers, OFF_REGS_2), bytes, 0);
        }
        break;
    case NR_COPY_FILE_RANGE:
        if (is_mine()) {
            moved(load64(registers, OFF_REGS_1), bytes, 0);
            moved(load64(registers, OFF_REGS_3), bytes, 1);
        }
        break;
    }
    return 0;
}
