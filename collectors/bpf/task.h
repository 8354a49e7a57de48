// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Reading kernel fields at offsets from the running kernel's BTF (-D OFF_...), never through headers.
#ifndef PERFSTREAM_TASK_H
#define PERFSTREAM_TASK_H

// In tp_btf programs, of pointers that the verifier knows: one plain load, no helper.
static __always_inline u32 load32(u64 base, int offset) { return *(volatile u32 *)(base + offset); }
static __always_inline u64 load64(u64 base, int offset) { return *(volatile u64 *)(base + offset); }

// Of any pointer; 0 when it cannot be read.
static __always_inline u64 read64(u64 base, int offset)
{
    u64 value = 0;
    bpf_probe_read_kernel(&value, sizeof(value), (void *)(base + offset));
    return value;
}
static __always_inline u32 read32(u64 base, int offset)
{
    u32 value = 0;
    bpf_probe_read_kernel(&value, sizeof(value), (void *)(base + offset));
    return value;
}
static __always_inline u16 read16(u64 base, int offset)
{
    u16 value = 0;
    bpf_probe_read_kernel(&value, sizeof(value), (void *)(base + offset));
    return value;
}

#endif
