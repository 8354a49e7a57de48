// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Calls of OpenSSL: how much was read or written, how long it took, and how handshakes end. Never what was read.
// A call that did not succeed tells why only when the program asks (SSL_get_error), so its row waits for that.
#include <uapi/linux/ptrace.h>
#define DETAIL_BYTES 16
#include "event.h"

enum { INPUT, OUTPUT, SHAKE };
enum { ASKED_SSL = 1, ASKED_READ, ASKED_WRITE, ASKED_SYSCALL = 5, ASKED_END };  // openssl/ssl.h: SSL_ERROR_...
enum { IO_ERROR = -5, AGAIN = -11, PROTOCOL_ERROR = -71, RESET = -104, CANCELED = -125 };

struct told { u64 bytes; u32 what, ended; };
struct entered { u64 at, ssl, size_at; };
struct key { u64 thread; u64 what; };
struct failed { u64 at, latency; u32 what, pad; };
struct peer { u64 process, ssl; };
struct handshake { u64 began; s64 last; };
BPF_TABLE("lru_hash", struct key, struct entered, inside, 8192);
BPF_TABLE("lru_hash", u64, struct failed, failures, 8192);
BPF_TABLE("lru_hash", u64, u64, asking, 8192);
BPF_TABLE("lru_hash", struct peer, struct handshake, handshakes, 8192);

static __always_inline void tell(u32 what, u64 latency, u64 bytes, s32 result, u32 ended)
{
    struct event *event = reserve();
    if (!event)
        return;
    struct told *told = (struct told *)event->detail;
    fill_current(event);
    event->latency = latency;
    event->result = result;
    told->bytes = bytes;
    told->what = what;
    told->ended = ended;
    submit(event);
}

static __always_inline struct peer peer_of(u64 ssl)
{
    struct peer peer = {.process = bpf_get_current_pid_tgid() >> 32, .ssl = ssl};
    return peer;
}

static __always_inline int enter(u64 what, u64 ssl, u64 size_at)
{
    struct key key = {.thread = bpf_get_current_pid_tgid(), .what = what};
    struct entered entered = {.at = bpf_ktime_get_ns(), .ssl = ssl, .size_at = size_at};
    inside.update(&key, &entered);
    failures.delete(&key.thread);
    if (what == SHAKE) {
        struct peer peer = peer_of(ssl);
        struct handshake first = {.began = entered.at, .last = CANCELED};
        handshakes.insert(&peer, &first);
    }
    return 0;
}

static __always_inline int leave_io(u64 what, s64 result)
{
    struct key key = {.thread = bpf_get_current_pid_tgid(), .what = what};
    struct entered *entered = inside.lookup(&key);
    if (!entered)
        return 0;
    u64 bytes = result, now = bpf_ktime_get_ns();
    if (result > 0) {
        if (entered->size_at && bpf_probe_read_user(&bytes, sizeof(bytes), (void *)entered->size_at))
            bytes = 0;
        tell(what, now - entered->at, bytes, 0, 0);
    } else {
        struct failed failed = {.at = now, .latency = now - entered->at, .what = what};
        failures.update(&key.thread, &failed);
    }
    inside.delete(&key);
    return 0;
}

int uprobe__SSL_read(struct pt_regs *ctx) { return enter(INPUT, PT_REGS_PARM1(ctx), 0); }
int uprobe__SSL_write(struct pt_regs *ctx) { return enter(OUTPUT, PT_REGS_PARM1(ctx), 0); }
int uprobe__SSL_read_ex(struct pt_regs *ctx) { return enter(INPUT, PT_REGS_PARM1(ctx), PT_REGS_PARM4(ctx)); }
int uprobe__SSL_write_ex(struct pt_regs *ctx) { return enter(OUTPUT, PT_REGS_PARM1(ctx), PT_REGS_PARM4(ctx)); }
int uprobe__SSL_do_handshake(struct pt_regs *ctx) { return enter(SHAKE, PT_REGS_PARM1(ctx), 0); }

int uretprobe__SSL_read(struct pt_regs *ctx) { return leave_io(INPUT, (s32)PT_REGS_RC(ctx)); }
int uretprobe__SSL_write(struct pt_regs *ctx) { return leave_io(OUTPUT, (s32)PT_REGS_RC(ctx)); }
int uretprobe__SSL_read_ex(struct pt_regs *ctx) { return leave_io(INPUT, (s32)PT_REGS_RC(ctx)); }
int uretprobe__SSL_write_ex(struct pt_regs *ctx) { return leave_io(OUTPUT, (s32)PT_REGS_RC(ctx)); }

static __always_inline void shaken(struct peer *peer, struct handshake *handshake, s32 result)
{
    tell(SHAKE, bpf_ktime_get_ns() - handshake->began, 0, result, 0);
    handshakes.delete(peer);
}

int uretprobe__SSL_do_handshake(struct pt_regs *ctx)
{
    struct key key = {.thread = bpf_get_current_pid_tgid(), .what = SHAKE};
    struct entered *entered = inside.lookup(&key);
    if (!entered)
        return 0;
    struct peer peer = peer_of(entered->ssl);
    struct handshake *handshake = handshakes.lookup(&peer);
    if (handshake) {
        if ((s32)PT_REGS_RC(ctx) == 1)
            shaken(&peer, handshake, 0);
        else
            handshake->last = PROTOCOL_ERROR;  // until the program asks
    }
    inside.delete(&key);
    return 0;
}

int uprobe__SSL_get_error(struct pt_regs *ctx)
{
    u64 thread = bpf_get_current_pid_tgid(), ssl = PT_REGS_PARM1(ctx);
    asking.update(&thread, &ssl);
    return 0;
}

int uretprobe__SSL_get_error(struct pt_regs *ctx)
{
    u64 thread = bpf_get_current_pid_tgid();
    u64 *ssl = asking.lookup(&thread);
    if (!ssl)
        return 0;
    struct peer peer = peer_of(*ssl);
    asking.delete(&thread);
    int why = PT_REGS_RC(ctx), again = why != ASKED_SSL && why != ASKED_SYSCALL && why != ASKED_END;
    struct failed *failed = failures.lookup(&thread);
    if (failed) {
        if (why && !again)
            tell(failed->what, failed->latency, 0, why == ASKED_END ? 0 : why == ASKED_SSL ? PROTOCOL_ERROR : IO_ERROR,
                 why == ASKED_END);
        failures.delete(&thread);
        return 0;
    }
    struct handshake *handshake = handshakes.lookup(&peer);
    if (!handshake || !why)
        return 0;
    if (again)
        handshake->last = CANCELED;  // if nothing more comes
    else
        shaken(&peer, handshake, why == ASKED_END ? RESET : why == ASKED_SSL ? PROTOCOL_ERROR : IO_ERROR);
    return 0;
}

// A handshake that nobody asked about, or that was given up.
int uprobe__SSL_free(struct pt_regs *ctx)
{
    struct peer peer = peer_of(PT_REGS_PARM1(ctx));
    struct handshake *handshake = handshakes.lookup(&peer);
    if (handshake)
        shaken(&peer, handshake, handshake->last);
    return 0;
}
