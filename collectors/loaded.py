"""What every collector with programs in the kernel tells of them, and how it lets go of them."""

from __future__ import annotations

from collectors.bpf.kernel import RunStats
from collectors.bpf.loader import Programs


class Loaded:
    """Base of collectors: ``_programs`` is set by their start, None before it and after ``close``."""

    _programs: Programs | None = None
    _lost_before: int = 0

    def lost(self) -> int:
        """Return how many events found no room in the kernel, or no program to take them, since the last call."""
        assert self._programs is not None
        total = self._programs.maps["lost"].total() + self.missed()
        lost, self._lost_before = total - self._lost_before, total
        return lost

    def missed(self) -> int:
        """Return how many events were lost because the kernel skipped a run, since ``start``."""
        assert self._programs is not None
        return self._programs.missed()

    def stats(self) -> RunStats:
        """Return what the kernel side has cost since ``start``."""
        return self._programs.stats() if self._programs else RunStats()

    def memory_bytes(self) -> int:
        """Return the kernel memory of the maps."""
        return self._programs.memory_bytes() if self._programs else 0

    def close(self) -> None:
        """Detach and free. May be called twice."""
        if self._programs:
            self._programs.close()
            self._programs = None
