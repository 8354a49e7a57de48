"""What a live gadget wants to see of the events, in the form in which its programs look at them in the kernel."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collectors.bpf.loader import Programs

_PID, _UID, _COMM, _FAILED, _SLOW = 1, 2, 4, 8, 16
BYTES = 40


@dataclass(frozen=True, slots=True)
class Wanted:
    """Every condition must hold; an empty one always does. The layout is that of ``bpf/wanted.h``."""

    pid: int | None = None
    uid: int | None = None
    comm: str = ""
    failed: bool = False
    min_latency_ns: int = 0

    @property
    def anything(self) -> bool:
        """Return whether there is no condition."""
        return self == Wanted()

    def defines(self) -> dict[str, int]:
        """Return the constants that programs are compiled with: those that want everything do not look."""
        return {} if self.anything else {"FILTERED": 1}

    def tell(self, programs: Programs) -> None:
        """Write it where loaded programs look."""
        if not self.anything:
            programs.maps["wanted"].update(bytes(4), self.packed())

    def packed(self) -> bytes:
        """Return it as the programs read it, ``BYTES`` bytes. The kernel keeps 15 bytes of a command's name."""
        flags = _PID * (self.pid is not None) | _UID * (self.uid is not None) | _COMM * bool(self.comm)
        flags |= _FAILED * self.failed | _SLOW * bool(self.min_latency_ns)
        comm = self.comm.encode("utf-8", "surrogateescape")[:15]
        return struct.pack("<QIII4x16s", self.min_latency_ns, flags, self.pid or 0, self.uid or 0, comm)
