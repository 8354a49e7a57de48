"""What this machine lacks for eBPF, each as one line that says what to do; puts right what can safely be put right."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import time
from pathlib import Path

from collectors.bpf.btf import VMLINUX
from collectors.bpf.compile import BCC

TRACEFS = Path("/sys/kernel/tracing")
MODULES = Path("/lib/modules")
SOURCES = Path("/usr/src")
UPROBES = Path("/sys/bus/event_source/devices/uprobe")
_CAPABILITIES = {38: "CAP_PERFMON", 39: "CAP_BPF"}
_SYS_ADMIN = 21
_libc = ctypes.CDLL(None, use_errno=True)


def missing(*, repair: bool = True) -> list[str]:
    """Return what is missing, empty when eBPF programs can be compiled and loaded.

    Args:
        repair: mount tracefs, and link installed headers to the running kernel's name, where that is missing.
    """
    checks = (_privileges(), _btf(), _tracefs(repair=repair), _bcc(), _headers(repair=repair), _ring_buffer())
    return [line for line in checks if line]


def tracepoint_missing(category: str, event: str) -> str:
    """Return why a tracepoint cannot be used, "" when it can."""
    if (TRACEFS / "events" / category / event / "id").exists():
        return ""
    return f"tracepoint {category}:{event} does not exist in this kernel; use a kernel that has it"


def uprobes_missing() -> str:
    """Return why functions of user-space libraries cannot be probed, "" when they can."""
    if (UPROBES / "type").exists():
        return ""
    return "this kernel has no uprobes; use one with CONFIG_UPROBE_EVENTS=y"


def _privileges() -> str:
    text = Path("/proc/self/status").read_text()
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", text, re.MULTILINE)
    have = int(found[1], 16) if found else 0
    if have >> _SYS_ADMIN & 1:
        return ""
    absent = [name for bit, name in _CAPABILITIES.items() if not have >> bit & 1]
    return f"no permission for eBPF: {' and '.join(absent)} missing; run as root (sudo)" if absent else ""


def _btf() -> str:
    return "" if VMLINUX.exists() else f"{VMLINUX} is missing; use a kernel with CONFIG_DEBUG_INFO_BTF=y"


def _tracefs(*, repair: bool) -> str:
    if (TRACEFS / "events").is_dir():
        return ""
    if repair and _libc.mount(b"tracefs", str(TRACEFS).encode(), b"tracefs", 0, None) == 0:
        return ""
    return f"tracefs is not mounted; run: mount -t tracefs tracefs {TRACEFS}"


def _bcc() -> str:
    if not (BCC / "__init__.py").exists():
        return "BCC is missing; install it: apt-get install python3-bpfcc"
    return ""


def _headers(*, repair: bool) -> str:
    release = platform.release()
    if Path("/sys/kernel/kheaders.tar.xz").exists():
        return ""
    home = MODULES / release
    if (home / "build").exists() and (home / "source").exists():
        return ""
    found = installed_headers()
    if found and repair:
        build, source = found
        try:
            home.mkdir(parents=True, exist_ok=True)
            for name, target in (("build", build), ("source", source)):
                if not (home / name).exists():
                    partial = home / f".{name}.{os.getpid()}"
                    partial.symlink_to(target)
                    partial.replace(home / name)
        except OSError as error:
            return f"cannot link kernel headers into {home}: {error.strerror}; run as root"
        return ""
    if found:
        return f"{home} has no headers; link {found[0]} to {home}/build and {found[1]} to {home}/source"
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"no kernel headers for {release}; install them: apt-get install linux-headers-{machine}"


def installed_headers(sources: Path = SOURCES) -> tuple[Path, Path] | None:
    """Return (build, source) of the newest installed header packages; on Debian they are two folders.

    Any version serves: programs take layouts from tracepoint formats and BTF, and only types from headers.
    """
    candidates = sorted(
        (path for path in sources.glob("linux-headers-*") if (path / "include" / "generated").is_dir()),
        key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)],
    )
    for build in reversed(candidates):
        common = Path(re.sub(r"-[a-z0-9]+$", "-common", str(build)))
        return build, common if common.is_dir() else build
    return None


def _ring_buffer() -> str:
    parts = [int(part) for part in re.findall(r"\d+", platform.release())[:2]]
    if parts < [5, 8]:
        return f"kernel {platform.release()} is too old; ring buffers and batches need 5.8 or later"
    return ""


def clock_base_ns() -> int:
    """Return Unix time minus CLOCK_MONOTONIC in ns, by which event times of the kernel become Unix times."""
    best = None
    for _ in range(5):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, wall - (before + after) // 2)
    assert best is not None
    return best[1]
