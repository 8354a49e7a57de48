// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Whose a socket is when no process is at hand (timers, packets that arrive): its cgroup, its user, and its inode, by
// which user space finds the process (collectors/socket_owners.py).
static __always_inline void fill_owner(struct event *event, u64 *inode, u64 sk)
{
    u64 holder = sk ? read64(sk, OFF_SK_SOCKET) : 0;
    event->at = bpf_ktime_get_ns();
    event->latency = 0;
    event->result = 0;
    event->pid = event->ppid = event->uid = 0;
    event->cgroup = 0;
    __builtin_memset(event->comm, 0, sizeof(event->comm));
    *inode = holder ? read64(holder, OFF_SOCKET_INODE) : 0;
    if (sk) {
        event->uid = read32(sk, OFF_SK_UID);
        event->cgroup = read64(read64(read64(sk, OFF_SK_CGROUP), OFF_CGROUP_KN), OFF_KN_ID);
    }
}
