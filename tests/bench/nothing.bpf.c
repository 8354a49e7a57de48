// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// A program that does nothing, for what the kernel's account of run times costs itself.
int tp_btf__sys_enter(u64 *ctx)
{
    return 0;
}
