"""The door: stacks of addresses to the contract's stacks of names.

Cost: a stack seen before costs a dictionary look-up; a new address one binary search; a new process one read of its
maps (about 0.1 ms) and one open for each file that no other process has shown yet. Memory is bounded: 512 processes,
192 files, 48 MB of symbols. Thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collectors.symbols.kernel import KernelSymbols
from collectors.symbols.lru import Lru
from collectors.symbols.modules import Modules
from collectors.symbols.process import Process, identity
from streams.schema.stacks import UNKNOWN, frame_text, join, stack_id

EXITED = "[exited]"
KERNEL_SUFFIX = "_[k]"
MAX_PROCESSES = 512
_MAPS_AGE_S = 60.0
_MAX_KERNEL_NAMES = 16384

Addresses = NDArray[np.uint64]


class Symbolizer:
    """Names of user and kernel addresses. ``proc`` and ``clock`` (seconds, monotonic) are the outside world."""

    def __init__(self, proc: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic) -> None:
        self._proc = proc
        self._clock = clock
        self._lock = threading.RLock()
        self.kernel = KernelSymbols(proc, clock)
        self._modules = Modules(proc)
        self._processes: Lru[int, Process] = Lru(MAX_PROCESSES)
        self._kernel_frames: dict[int, str] = {}
        self._exited = 0

    def prefetch(self, pids: Iterable[int]) -> None:
        """Look at processes now, so that their names are known after they exit."""
        for pid in pids:
            with self._lock:
                if self._processes.get(pid) is None:
                    self._process(pid)

    def stacks(
        self, pid: int, keys: Sequence[tuple[int, int]], users: Sequence[Addresses], kernels: Sequence[Addresses]
    ) -> list[tuple[int, str]]:
        """Return (id, frames) of each stack of one process.

        Args:
            pid: the process (thread group) id as the agent sees it.
            keys: for each stack a pair that is equal only for equal stacks (the kernel's hashes).
            users: user addresses of each stack, leaf first, as the kernel gives them; empty for kernel threads.
            kernels: kernel addresses of each stack, leaf first.
        """
        with self._lock:
            process = self._process(pid) if any(len(user) for user in users) else None
            if process is not None:
                process.refresh_jit()
            missing = [i for i, key in enumerate(keys) if process is None or key not in process.stacks]
            user_names = self._user_names(process, [users[i] for i in missing])
            kernel_names = self._kernel_names([kernels[i] for i in missing])
            # Names may have been dropped and made anew meanwhile; what was finished before is read first.
            done = {i: process.stacks[key] for i, key in enumerate(keys) if process and key in process.stacks}
            for i in missing:
                frames = self._join(users[i], kernels[i], user_names, kernel_names)
                done[i] = (stack_id(frames), frames)
                if process is not None:
                    process.remember(keys[i], done[i])
            again = [i for i in range(len(keys)) if i not in done]
            if again:
                parts = ([x[i] for i in again] for x in (keys, users, kernels))
                done.update(zip(again, self.stacks(pid, *parts), strict=True))  # type: ignore[arg-type]
            self._modules.trim()
            return [done[i] for i in range(len(keys))]

    def _process(self, pid: int) -> Process | None:
        who = identity(self._proc, pid)
        known = self._processes.get(pid)
        if who is None:
            return known  # exited: what was seen of it while it lived still holds
        now = self._clock()
        if known is None or known.identity != who:
            known = Process(self._proc, pid, who, self._modules)
            self._processes.put(pid, known)
            known.maps_read_s = float("-inf")
        if now - known.maps_read_s > _MAPS_AGE_S:
            known.maps_read_s = now
            known.read_maps()
        return known

    def _user_names(self, process: Process | None, stacks: list[Addresses]) -> dict[int, str] | None:
        if process is None:
            self._exited += sum(1 for stack in stacks if len(stack))
            return None
        adjusted = [callers_adjusted(stack) for stack in stacks if len(stack)]
        return process.frames(np.unique(np.concatenate(adjusted))) if adjusted else {}

    def _kernel_names(self, stacks: list[Addresses]) -> dict[int, str]:
        adjusted = [callers_adjusted(stack) for stack in stacks if len(stack)]
        if adjusted:
            if len(self._kernel_frames) > _MAX_KERNEL_NAMES:
                self._kernel_frames.clear()
            new = np.array(
                [a for a in np.unique(np.concatenate(adjusted)).tolist() if a not in self._kernel_frames], np.uint64
            )
            for address, (function, module) in zip(new.tolist(), self.kernel.names(new), strict=True):
                self._kernel_frames[address] = frame_text(function + KERNEL_SUFFIX, module)
        return self._kernel_frames

    @staticmethod
    def _join(
        user: Addresses, kernel: Addresses, user_names: dict[int, str] | None, kernel_names: dict[int, str]
    ) -> str:
        texts: list[str] = []
        if len(user):
            if user_names is None:
                texts.append(frame_text(EXITED))
            else:
                texts += [user_names[a] for a in reversed(callers_adjusted(user).tolist())]
        texts += [kernel_names[a] for a in reversed(callers_adjusted(kernel).tolist())]
        return join(texts or [frame_text(UNKNOWN)])

    def stats(self) -> dict[str, int]:
        """Return counts for the agent's metrics: processes, modules, symbol bytes, stacks of exited processes."""
        return {
            "processes": len(self._processes),
            "modules": len(self._modules),
            "symbol_bytes": self._modules.nbytes,
            "exited_stacks": self._exited,
        }

    def close(self) -> None:
        """Close every file that is held open."""
        with self._lock:
            self._processes.clear()
            self._modules.close()


def callers_adjusted(stack: Addresses) -> Addresses:
    """Return the addresses of a stack (leaf first) with those of callers moved back into the call.

    A return address points behind the call, which may be the next function when the call never returns.
    """
    result = stack.copy()
    result[1:] -= np.uint64(1)
    return result
