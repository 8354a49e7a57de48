"""Where the kernel programs find what tracepoints do not tell: constant name to field of the running kernel's BTF.

A field with a question mark is one to do without: its constant is -1 on a kernel that lacks it.
"""

from __future__ import annotations

import platform

TASK = {
    "OFF_TASK_PID": "task_struct.pid",
    "OFF_TASK_TGID": "task_struct.tgid",
    "OFF_TASK_FLAGS": "task_struct.flags",
    "OFF_TASK_COMM": "task_struct.comm",
    "OFF_TASK_LEADER": "task_struct.group_leader",
    "OFF_TASK_PARENT": "task_struct.real_parent",
    "OFF_TASK_CGROUPS": "task_struct.cgroups",
    "OFF_TASK_CRED": "task_struct.cred",
    "OFF_CRED_UID": "cred.uid",
    "OFF_CSS_SET_DFL_CGRP": "css_set.dfl_cgrp",
    "OFF_CGROUP_KN": "cgroup.kn",
    "OFF_KN_ID": "kernfs_node.id",
}

SCHEDULER = {
    "OFF_TASK_CFS_RQ": "task_struct.se.cfs_rq?",
    "OFF_CFS_RQ_RQ": "cfs_rq.rq?",
    "OFF_RUNQUEUE_CLOCK": "rq.clock?",
}

BLOCK = {
    "OFF_RQ_Q": "request.q",
    "OFF_RQ_FLAGS": "request.cmd_flags",
    "OFF_RQ_DATA_LEN": "request.__data_len",
    "OFF_Q_DISK": "request_queue.disk",
    "OFF_DISK_MAJOR": "gendisk.major",
    "OFF_DISK_MINOR": "gendisk.first_minor",
}

EXEC = {
    "OFF_BPRM_FILENAME": "linux_binprm.filename",
    "OFF_TASK_MM": "task_struct.mm",
    "OFF_MM_ENV_START": "mm_struct.env_start",
    "OFF_MM_ENV_END": "mm_struct.env_end",
    "OFF_MM_ARG_START": "mm_struct.arg_start",
    "OFF_MM_ARG_END": "mm_struct.arg_end",
    "OFF_TASK_FS": "task_struct.fs",
    "OFF_FS_PWD": "fs_struct.pwd",
}

EXIT = {
    "OFF_TASK_SIGNAL": "task_struct.signal",
    "OFF_TASK_CODE": "task_struct.exit_code",
    "OFF_TASK_START": "task_struct.start_time",
    "OFF_SIGNAL_LIVE": "signal_struct.live",
    "OFF_SIGNAL_CODE": "signal_struct.group_exit_code",
}

SOCK = {
    "OFF_SK_FAMILY": "sock.__sk_common.skc_family",
    "OFF_SK_NUM": "sock.__sk_common.skc_num",
    "OFF_SK_DPORT": "sock.__sk_common.skc_dport",
    "OFF_SK_DADDR": "sock.__sk_common.skc_daddr",
    "OFF_SK_RCV_SADDR": "sock.__sk_common.skc_rcv_saddr",
    "OFF_SK_V6_DADDR": "sock.__sk_common.skc_v6_daddr",
    "OFF_SK_V6_RCV_SADDR": "sock.__sk_common.skc_v6_rcv_saddr",
    "OFF_SK_PROTOCOL": "sock.sk_protocol",
    "OFF_SK_ERR": "sock.sk_err",
    "OFF_INET_SPORT": "inet_sock.inet_sport",
}

TCP = {
    "OFF_TCP_SENT": "tcp_sock.bytes_sent",
    "OFF_TCP_RESENT": "tcp_sock.bytes_retrans",
    "OFF_TCP_RECEIVED": "tcp_sock.bytes_received",
    "OFF_TCP_RETRANS": "tcp_sock.total_retrans",
    "OFF_TCP_SRTT": "tcp_sock.srtt_us",
    "OFF_SK_FLAGS": "sock.__sk_common.skc_flags",
    "OFF_SK_STATE": "sock.__sk_common.skc_state",
}

SOCK_OWNER = {
    "OFF_SK_SOCKET": "sock.sk_socket",
    "OFF_SK_UID": "sock.sk_uid",
    "OFF_SK_CGROUP": "sock.sk_cgrp_data.cgroup",
    "OFF_SOCKET_INODE": "socket_alloc.vfs_inode.i_ino",
}

SKB = {
    "OFF_SKB_SK": "sk_buff.sk",
    "OFF_SKB_HEAD": "sk_buff.head",
    "OFF_SKB_NETWORK": "sk_buff.network_header",
    "OFF_SKB_TRANSPORT": "sk_buff.transport_header",
    "OFF_SKB_PROTOCOL": "sk_buff.protocol",
    "OFF_SKB_LEN": "sk_buff.len",
}

SIGNAL = {"OFF_SIGINFO_CODE": "kernel_siginfo.si_code"}

CAPABILITY = {"OFF_USERNS_LEVEL": "user_namespace.level"}

BIND = {"OFF_SK_DEVICE": "sock.__sk_common.skc_bound_dev_if"}

FILES = {
    "OFF_TASK_FILES": "task_struct.files",
    "OFF_FILES_FDT": "files_struct.fdt",
    "OFF_FDT_FD": "fdtable.fd",
    "OFF_FILE_DATA": "file.private_data",
    "OFF_SOCKET_SK": "socket.sk",
}

PATH = {
    "OFF_FILE_DENTRY": "file.f_path.dentry",
    "OFF_FILE_MNT": "file.f_path.mnt",
    "OFF_DENTRY_PARENT": "dentry.d_parent",
    "OFF_DENTRY_NAME": "dentry.d_name.name",
    "OFF_MOUNT_MNT": "mount.mnt",
    "OFF_MOUNT_PARENT": "mount.mnt_parent",
    "OFF_MOUNT_POINT": "mount.mnt_mountpoint",
    "OFF_VFSMOUNT_ROOT": "vfsmount.mnt_root",
}

INODE = {
    "OFF_FILE_INODE": "file.f_inode",
    "OFF_INODE_MODE": "inode.i_mode",
    "OFF_INODE_NUMBER": "inode.i_ino",
    "OFF_INODE_SB": "inode.i_sb",
    "OFF_SB_DEV": "super_block.s_dev",
}

FILE_SYSTEM = {"OFF_SB_TYPE": "super_block.s_type", "OFF_FS_NAME": "file_system_type.name"}

# Where a system call's number and its first arguments stand when it ends; on arm64 the result takes the first's place.
CALL = (
    {
        "OFF_REGS_CALL": "pt_regs.syscallno",
        "OFF_REGS_1": "pt_regs.orig_x0",
        "OFF_REGS_ALL": "pt_regs.regs",
    }
    if platform.machine() == "aarch64"
    else {
        "OFF_REGS_CALL": "pt_regs.orig_ax",
        "OFF_REGS_1": "pt_regs.di",
        "OFF_REGS_2": "pt_regs.si",
        "OFF_REGS_3": "pt_regs.dx",
    }
)
