// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// The latency histogram of streams/schema/histogram.py: 16 linear sub-buckets in each octave, 976 buckets.
#ifndef PERFSTREAM_HISTOGRAM_H
#define PERFSTREAM_HISTOGRAM_H

static __always_inline u32 floor_log2(u64 v)
{
    // Branch-free halving: no loop for the verifier, six steps whatever the value.
    u32 r = (v > 0xffffffffULL) << 5, s;
    v >>= r;
    s = (v > 0xffff) << 4; v >>= s; r |= s;
    s = (v > 0xff) << 3; v >>= s; r |= s;
    s = (v > 0xf) << 2; v >>= s; r |= s;
    s = (v > 0x3) << 1; v >>= s; r |= s;
    return r | (v >> 1);
}

static __always_inline u16 bucket_of(u64 v)
{
    if (v < 16)
        return v;
    u32 shift = floor_log2(v) - 4;
    return shift * 16 + (v >> shift);
}

#endif
