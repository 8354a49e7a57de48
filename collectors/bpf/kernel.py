"""The thin layer over bpf(2) and perf_event_open(2): numbers, attribute layouts, errors. No policy.

Layouts follow ``include/uapi/linux/bpf.h`` and ``perf_event.h`` of Linux 5.8 and later; the kernel accepts shorter
attributes than its own and reads the rest as zero. Every failure is a ``KernelError`` that names the call.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from streams.schema.errors import KernelError

_ARM = platform.machine() == "aarch64"
_NR_BPF = 280 if _ARM else 321
_NR_PERF_EVENT_OPEN = 241 if _ARM else 298
_NR_MEMBARRIER = 283 if _ARM else 324

MAP_CREATE, LOOKUP, UPDATE, DELETE, NEXT_KEY, PROG_LOAD = 0, 1, 2, 3, 4, 5
OBJ_INFO, RAW_TRACEPOINT_OPEN, LOOKUP_BATCH, DRAIN_BATCH, ENABLE_STATS = 15, 17, 24, 25, 32

PROG_TRACEPOINT, PROG_PERF_EVENT, PROG_RAW_TRACEPOINT, PROG_TRACING = 5, 7, 17, 26
PROG_SOCKET_FILTER, PROG_KPROBE = 1, 2  # a uprobe's program is of the kernel probes' type
ATTACH_TRACE_RAW_TP = 23

HASH, ARRAY, PERF_EVENT_ARRAY, PERCPU_HASH, PERCPU_ARRAY, STACK_TRACE = 1, 2, 4, 5, 6, 7
LRU_HASH, LRU_PERCPU_HASH, RINGBUF = 9, 10, 27
PERCPU_TYPES = frozenset({PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH})

PERF_SOFTWARE, PERF_TRACEPOINT = 1, 2
PERF_COUNT_SW_CPU_CLOCK = 0
_IOC_ENABLE, _IOC_SET_BPF = 0x2400, 0x40042408
_CLOEXEC = 8
_UPROBES = Path("/sys/bus/event_source/devices/uprobe")
_SO_ATTACH_BPF = 50
_BATCH = 8192
_MOST_SLOTS = 1 << 18  # 4 MB

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Make one call of the system call; returns its result, raises ``OSError`` with the kernel's errno."""
    buffer = (
        attributes if isinstance(attributes, ctypes.Array) else ctypes.create_string_buffer(attributes, len(attributes))
    )
    result = _libc.syscall(
        ctypes.c_long(_NR_BPF), ctypes.c_long(command), ctypes.byref(buffer), ctypes.c_long(len(buffer))
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def map_create(kind: int, key_size: int, value_size: int, max_entries: int, flags: int = 0, name: str = "") -> int:
    """Create a map; returns its descriptor.

    Raises:
        KernelError: the kernel refused it.
    """
    attributes = struct.pack(
        "<7I16s",
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
        0,
        0,
        "".join(c for c in name if c.isalnum() or c == "_")[:15].encode(),
    )
    try:
        return bpf(MAP_CREATE, attributes)
    except OSError as error:
        raise KernelError(
            f"cannot create BPF map {name!r} ({max_entries} entries): {error.strerror}{_hint(error)}"
        ) from error


def prog_load(kind: int, instructions: bytes, name: str, attach_type: int = 0, attach_btf_id: int = 0) -> int:
    """Load one program; returns its descriptor.

    Raises:
        KernelError: the verifier refused it; the end of its log is in the message.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")

    def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
        return bpf(
            PROG_LOAD,
            struct.pack(
                "<IIQQIIQII16sIIIIQIIQIII",
                kind,
                len(instructions) // 8,
                ctypes.addressof(code),
                ctypes.addressof(licence),
                1 if log else 0,
                len(log) if log else 0,
                ctypes.addressof(log) if log else 0,
                0,
                0,
                name[:15].encode(),
                0,
                attach_type,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                attach_btf_id,
                0,
            ),
        )

    try:
        return attempt(None)
    except OSError as error:
        log = ctypes.create_string_buffer(1 << 20)
        try:
            return attempt(log)
        except OSError:
            tail = log.value.decode(errors="replace").strip().splitlines()[-12:]
            raise KernelError(
                f"the kernel refused BPF program {name!r}: {error.strerror}{_hint(error)}"
                + ("\n" + "\n".join(tail) if tail else "")
            ) from error


def _hint(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "; run as root or with CAP_BPF and CAP_PERFMON"
    return ""


def raw_tracepoint_open(prog_fd: int, event: str | None) -> int:
    """Attach a raw tracepoint program, or (``event`` None) one that was loaded with its BTF id; returns the link."""
    name = ctypes.create_string_buffer(event.encode()) if event else None
    try:
        return bpf(RAW_TRACEPOINT_OPEN, struct.pack("<QII", ctypes.addressof(name) if name else 0, prog_fd, 0))
    except OSError as error:
        raise KernelError(f"cannot attach to raw tracepoint {event or '(by BTF)'}: {error.strerror}") from error


def perf_event_open(
    kind: int, config: int, cpu: int, *, period: int = 0, frequency: int = 0, more: tuple[int, int] = (0, 0)
) -> int:
    """Open a perf event on one CPU for all processes; returns its descriptor.

    ``frequency`` in Hz; ``more`` are the attribute's ``config1`` and ``config2``.
    """
    flags = (1 << 10) if frequency else 0
    attributes = ctypes.create_string_buffer(
        struct.pack("<IIQQQQQIIQQ", kind, 112, config, frequency or period, 0, 0, flags, 1, 0, *more), 112
    )
    fd = _libc.syscall(
        ctypes.c_long(_NR_PERF_EVENT_OPEN),
        ctypes.byref(attributes),
        ctypes.c_long(-1),
        ctypes.c_long(cpu),
        ctypes.c_long(-1),
        ctypes.c_long(_CLOEXEC),
    )
    if fd < 0:
        number = ctypes.get_errno()
        raise KernelError(f"perf_event_open on cpu {cpu}: {os.strerror(number)}; run as root or with CAP_PERFMON")
    return int(fd)


def uprobe_open(path: str, offset: int, *, returning: bool) -> int:
    """Open the event of code at a file's offset being reached, or the function there returning, in any process.

    The file itself is meant, whatever mount namespace it is mapped in; ``path`` is looked up once, now.

    Raises:
        KernelError: this kernel has no uprobes, or the file or the offset is none of code.
    """
    try:
        kind = int((_UPROBES / "type").read_text())
        bit = int((_UPROBES / "format" / "retprobe").read_text().strip().removeprefix("config:")) if returning else 0
    except (OSError, ValueError) as error:
        raise KernelError("this kernel has no uprobes; use one with CONFIG_UPROBE_EVENTS=y") from error
    name = ctypes.create_string_buffer(os.fsencode(path))
    # One CPU is enough to open it: the program then runs wherever the code is reached.
    return perf_event_open(kind, returning << bit, online_cpus()[0], more=(ctypes.addressof(name), offset))


def filter_socket(sock: socket.socket, prog_fd: int) -> None:
    """Run a socket filter program for every packet that reaches a socket."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, struct.pack("<i", prog_fd))
    except OSError as error:
        raise KernelError(f"cannot attach a BPF program to a socket: {error.strerror}") from error


def perf_event_attach(event_fd: int, prog_fd: int) -> None:
    """Run a program at every overflow of a perf event, and enable the event."""
    try:
        fcntl.ioctl(event_fd, _IOC_SET_BPF, prog_fd)
        fcntl.ioctl(event_fd, _IOC_ENABLE, 0)
    except OSError as error:
        raise KernelError(f"cannot attach a BPF program to a perf event: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class RunStats:
    """What programs cost in the kernel: nanoseconds, runs, and runs that the kernel skipped as recursive.

    ``told_ns`` is the programs' own account (``cost.h``), which needs no privilege: an estimate from every 61st run.
    """

    run_time_ns: int = 0
    run_cnt: int = 0
    missed: int = 0
    told_ns: int = 0

    def __add__(self, other: RunStats) -> RunStats:
        return RunStats(
            self.run_time_ns + other.run_time_ns,
            self.run_cnt + other.run_cnt,
            self.missed + other.missed,
            self.told_ns + other.told_ns,
        )


def prog_stats(prog_fd: int) -> RunStats:
    """Return what a program has cost. Times are only counted while statistics are enabled."""
    info = ctypes.create_string_buffer(232)
    bpf(OBJ_INFO, struct.pack("<IIQ", prog_fd, len(info), ctypes.addressof(info)))
    return RunStats(*struct.unpack_from("<QQQ", info.raw, 192))


def enable_stats() -> int:
    """Count run times for as long as the returned descriptor is open; needs CAP_SYS_ADMIN.

    Costs 30 to 80 ns a program run, for every program of the node.
    """
    return bpf(ENABLE_STATS, struct.pack("<I", 0))


def memlock_bytes(fd: int) -> int:
    """Return the kernel memory of a map or program, from its fdinfo."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("memlock:"):
            return int(line.split()[1])
    return 0


def wait_for_running_programs() -> None:
    """Return when every BPF program that was running has ended (an RCU grace period; a few ms, no CPU)."""
    _libc.syscall(ctypes.c_long(_NR_MEMBARRIER), ctypes.c_long(1), ctypes.c_long(0), ctypes.c_long(0))


def possible_cpus() -> int:
    """Return the number of CPUs for which per-CPU maps hold a value."""
    return _cpu_list("possible")[-1] + 1


def online_cpus() -> list[int]:
    """Return the CPUs that are online."""
    return _cpu_list("online")


def thread_slots() -> int:
    """Return ``SLOTS`` of ``slots.h``: the bound of thread numbers as a power of two, at most 2^18."""
    bound = int(Path("/proc/sys/kernel/pid_max").read_text())
    return min(_MOST_SLOTS, 1 << (bound - 1).bit_length())


def _cpu_list(which: str) -> list[int]:
    cpus: list[int] = []
    for part in Path(f"/sys/devices/system/cpu/{which}").read_text().strip().split(","):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus
