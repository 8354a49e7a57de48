"""BPF ring buffer, read in bulk: fixed-size records become one structured NumPy array without a Python loop.

Layout (Linux ``kernel/bpf/ringbuf.c``): one page with the consumer position, one with the producer position, then
the data, mapped twice so that a record that wraps is contiguous. A record is an 8-byte header and its payload rounded
up to 8; bit 31 of the header's length says "still being written", bit 30 "discarded".
"""

from __future__ import annotations

import mmap
import os
import select
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.bpf.maps import Map

_BUSY, _DISCARD = 1 << 31, 1 << 30


class RingBuffer:
    """The consumer of one ring buffer whose records all are of one dtype. Not thread-safe."""

    def __init__(self, ring: Map, record: np.dtype[Any]) -> None:
        self._size, self._record = ring.max_entries, record
        page = mmap.PAGESIZE
        self._consumer_map = mmap.mmap(ring.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer_map = mmap.mmap(ring.fd, page + 2 * self._size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer = np.frombuffer(self._consumer_map, dtype=np.uint64, count=1)
        self._producer = np.frombuffer(self._producer_map, dtype=np.uint64, count=1)
        self._data = np.frombuffer(self._producer_map, dtype=np.uint8, offset=page)
        self._stride = 8 + (record.itemsize + 7) // 8 * 8
        self._framed = np.dtype(
            {
                "names": ["length", "payload"],
                "formats": [np.uint32, record],
                "offsets": [0, 8],
                "itemsize": self._stride,
            }
        )
        self._fd = ring.fd
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(ring.fd, select.EPOLLIN)
        self._poll.register(self._bell, select.EPOLLIN)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until there are records or ``wake`` is called; returns whether there are records."""
        return any(fd == self._fd for fd, _ in self._poll.poll(timeout_s))

    def wake(self) -> None:
        """End every ``wait``, from now on; from any thread."""
        os.eventfd_write(self._bell, 1)

    def read(self) -> NDArray[Any]:
        """Return a copy of all finished records, oldest first, and give their room back."""
        consumer = int(self._consumer[0])
        count = (int(self._producer[0]) - consumer) // self._stride
        if count <= 0:
            return np.empty(0, dtype=self._record)
        start = consumer % self._size
        framed = self._data[start : start + count * self._stride].view(self._framed)
        lengths = framed["length"].copy()
        busy = np.flatnonzero(lengths & _BUSY)
        if busy.size:
            count = int(busy[0])
        records: NDArray[Any] = framed["payload"][:count][(lengths[:count] & _DISCARD) == 0].copy()
        self._consumer[0] = consumer + count * self._stride
        return records

    def close(self) -> None:
        """Unmap it."""
        self._poll.close()
        os.close(self._bell)
        del self._consumer, self._producer, self._data
        self._consumer_map.close()
        self._producer_map.close()
