"""Where the kernel programs find what tracepoints do not tell: constant name to field of the running kernel's BTF."""

from __future__ import annotations

TASK = {
    "OFF_TASK_PID": "task_struct.pid",
    "OFF_TASK_TGID": "task_struct.tgid",
    "OFF_TASK_FLAGS": "task_struct.flags",
    "OFF_TASK_COMM": "task_struct.comm",
    "OFF_TASK_LEADER": "task_struct.group_leader",
    "OFF_TASK_PARENT": "task_struct.real_parent",
    "OFF_TASK_CGROUPS": "task_struct.cgroups",
    "OFF_CSS_SET_DFL_CGRP": "css_set.dfl_cgrp",
    "OFF_CGROUP_KN": "cgroup.kn",
    "OFF_KN_ID": "kernfs_node.id",
}

BLOCK = {
    "OFF_RQ_Q": "request.q",
    "OFF_RQ_FLAGS": "request.cmd_flags",
    "OFF_RQ_DATA_LEN": "request.__data_len",
    "OFF_Q_DISK": "request_queue.disk",
    "OFF_DISK_MAJOR": "gendisk.major",
    "OFF_DISK_MINOR": "gendisk.first_minor",
}

EXEC = {"OFF_BPRM_FILENAME": "linux_binprm.filename"}

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

SIGNAL = {"OFF_SIGINFO_CODE": "kernel_siginfo.si_code"}

FILES = {
    "OFF_TASK_FILES": "task_struct.files",
    "OFF_FILES_FDT": "files_struct.fdt",
    "OFF_FDT_FD": "fdtable.fd",
    "OFF_FILE_DATA": "file.private_data",
    "OFF_SOCKET_SK": "socket.sk",
}
