"""Every BPF program that the kernel holds, whoever loaded it: what it is, what it has cost, which processes have it.

Numbers and layouts: Linux ``include/uapi/linux/bpf.h`` (``bpf_prog_info``). Needs CAP_SYS_ADMIN.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from collectors.bpf import kernel
from streams.schema.errors import KernelError

_NEXT_ID, _PROG_BY_ID, _MAP_BY_ID = 11, 13, 14
_TYPES = (
    "unspec", "socket_filter", "kprobe", "sched_cls", "sched_act", "tracepoint", "xdp", "perf_event", "cgroup_skb",
    "cgroup_sock", "lwt_in", "lwt_out", "lwt_xmit", "sock_ops", "sk_skb", "cgroup_device", "sk_msg", "raw_tracepoint",
    "cgroup_sock_addr", "lwt_seg6local", "lirc_mode2", "sk_reuseport", "flow_dissector", "cgroup_sysctl",
    "raw_tracepoint_writable", "cgroup_sockopt", "tracing", "struct_ops", "ext", "lsm", "sk_lookup", "syscall",
    "netfilter",
)  # fmt: skip
_MOST_MAPS = 64  # as many as the verifier allows a program


@dataclass(frozen=True, slots=True)
class Program:
    """One loaded program. ``memory_bytes`` is its own code's; ``map_ids`` its maps, which others may share."""

    number: int
    kind: str
    name: str
    uid: int
    stats: kernel.RunStats
    memory_bytes: int
    map_ids: tuple[int, ...]


def programs() -> Iterator[Program]:
    """Yield every loaded program in the order of its number.

    Raises:
        KernelError: not permitted.
    """
    number = 0
    while (following := _next(number)) is not None:
        number = following
        try:
            fd = kernel.bpf(_PROG_BY_ID, struct.pack("<III", number, 0, 0))
        except FileNotFoundError:
            continue  # unloaded in this moment
        try:
            yield _info(number, fd)
        finally:
            os.close(fd)


def _next(number: int) -> int | None:
    attributes = ctypes.create_string_buffer(struct.pack("<III", number, 0, 0), 12)
    try:
        kernel.bpf(_NEXT_ID, attributes)
    except FileNotFoundError:
        return None
    except OSError as error:
        hint = "; run as root" if error.errno == errno.EPERM else ""
        raise KernelError(f"cannot list BPF programs: {error.strerror}{hint}") from error
    return int(struct.unpack_from("<I", attributes.raw, 4)[0])


def _info(number: int, fd: int) -> Program:
    maps = (ctypes.c_uint32 * _MOST_MAPS)()
    info = ctypes.create_string_buffer(232)
    struct.pack_into("<IQ", info, 52, _MOST_MAPS, ctypes.addressof(maps))
    kernel.bpf(kernel.OBJ_INFO, struct.pack("<IIQ", fd, len(info), ctypes.addressof(info)))
    kind, uid, count = (struct.unpack_from("<I", info.raw, at)[0] for at in (0, 48, 52))
    return Program(
        number=number,
        kind=_TYPES[kind] if kind < len(_TYPES) else f"type{kind}",
        name=info.raw[64:80].partition(b"\0")[0].decode(errors="replace"),
        uid=uid,
        stats=kernel.RunStats(*struct.unpack_from("<QQQ", info.raw, 192)),
        memory_bytes=kernel.memlock_bytes(fd),
        map_ids=tuple(maps[: min(count, _MOST_MAPS)]),
    )


def map_bytes(number: int) -> int:
    """Return the kernel memory of a map by its number; 0 when it is gone."""
    try:
        fd = kernel.bpf(_MAP_BY_ID, struct.pack("<III", number, 0, 0))
    except OSError:
        return 0
    try:
        return kernel.memlock_bytes(fd)
    finally:
        os.close(fd)


def owners(proc: Path = Path("/proc")) -> dict[int, list[int]]:
    """Return {program number: processes that hold it, by a descriptor of the program or of a link to it}.

    A program that is only pinned, or attached by a process that has ended, belongs to nobody.
    """
    found: dict[int, list[int]] = {}
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):  # noqa: PTH208 - names, not paths
        directory = f"{proc}/{pid}"
        with suppress(OSError):
            for fd in os.listdir(f"{directory}/fd"):  # noqa: PTH208
                with suppress(OSError):
                    if not os.readlink(f"{directory}/fd/{fd}").startswith("anon_inode:bpf"):  # noqa: PTH115
                        continue
                    for line in Path(f"{directory}/fdinfo/{fd}").read_text().splitlines():
                        if line.startswith("prog_id:"):
                            held = found.setdefault(int(line.split()[1]), [])
                            if pid not in held:
                                held.append(pid)
    return found
