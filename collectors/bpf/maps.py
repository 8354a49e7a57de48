"""BPF maps from user space: single elements and whole drains as NumPy columns."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from collectors.bpf import kernel
from streams.schema.errors import KernelError

_BATCH = 8192


class Map:
    """One map. Keys and values are bytes in single calls, structured arrays in batches."""

    def __init__(self, name: str, kind: int, key_size: int, value_size: int, max_entries: int, flags: int = 0) -> None:
        self.name, self.kind, self.key_size, self.max_entries = name, kind, key_size, max_entries
        self.value_size = value_size
        self.fd = kernel.map_create(kind, key_size, value_size, max_entries, flags, name)
        self._cpus = kernel.possible_cpus() if kind in kernel.PERCPU_TYPES else 1
        self._slot = (value_size + 7) // 8 * 8 if kind in kernel.PERCPU_TYPES else value_size

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key (per-CPU maps: all CPUs' values, each rounded up to 8 bytes), or None."""
        value = ctypes.create_string_buffer(self._slot * self._cpus)
        try:
            self._element(kernel.LOOKUP, key, value)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return value.raw

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value of a key."""
        self._element(kernel.UPDATE, key, ctypes.create_string_buffer(value, len(value)), flags)

    def delete(self, key: bytes) -> bool:
        """Delete a key; returns whether it was there."""
        try:
            self._element(kernel.DELETE, key, None)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def _element(self, command: int, key: bytes, value: ctypes.Array[ctypes.c_char] | None, flags: int = 0) -> None:
        if len(key) != self.key_size:
            raise ValueError(f"map {self.name}: a key has {self.key_size} bytes, not {len(key)}")
        held = ctypes.create_string_buffer(key, len(key))
        address = ctypes.addressof(value) if value is not None else 0
        kernel.bpf(command, struct.pack("<IIQQQ", self.fd, 0, ctypes.addressof(held), address, flags))

    def total(self, index: int = 0) -> int:
        """Return a counter of an array of u64, summed over the CPUs."""
        raw = self.lookup(struct.pack("<I", index)) or b""
        return int(np.frombuffer(raw, dtype=np.uint64).sum(dtype=np.uint64))

    def drain(self, key: DTypeLike, value: DTypeLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return all (keys, values) of a hash map and delete them. Per-CPU values have shape (n, cpus)."""
        return self._batches(kernel.DRAIN_BATCH, np.dtype(key), np.dtype(value))

    def items(self, key: DTypeLike, value: DTypeLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return all (keys, values) without deleting them. Per-CPU values have shape (n, cpus)."""
        return self._batches(kernel.LOOKUP_BATCH, np.dtype(key), np.dtype(value))

    def _batches(self, command: int, key: np.dtype[Any], value: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        if key.itemsize != self.key_size or value.itemsize != self._slot:
            raise ValueError(
                f"map {self.name}: {self.key_size} + {self._slot} bytes, not {key.itemsize} + {value.itemsize}"
            )
        size = min(_BATCH, self.max_entries)
        keys_out, values_out = [], []
        cursor: ctypes.Array[ctypes.c_char] | None = None
        while True:
            keys = np.empty(size, dtype=key)
            values = np.empty((size, self._cpus), dtype=value)
            following = ctypes.create_string_buffer(max(self.key_size, 8))
            attributes = ctypes.create_string_buffer(
                struct.pack(
                    "<QQQQIIQQ",
                    ctypes.addressof(cursor) if cursor is not None else 0,
                    ctypes.addressof(following),
                    keys.ctypes.data,
                    values.ctypes.data,
                    size,
                    self.fd,
                    0,
                    0,
                ),
                56,
            )
            ended = False
            try:
                kernel.bpf(command, attributes)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    # One bucket holds more than the batch: the kernel copied nothing of it. Ask for more.
                    size *= 2
                    continue
                if error.errno != errno.ENOENT:
                    raise KernelError(f"cannot read BPF map {self.name}: {error.strerror}") from error
                ended = True
            count = struct.unpack_from("<I", attributes.raw, 32)[0]
            keys_out.append(keys[:count])
            values_out.append(values[:count])
            if ended:
                break
            cursor = following
        all_values = np.concatenate(values_out)
        return np.concatenate(
            keys_out
        ), all_values if self._cpus > 1 or self.kind in kernel.PERCPU_TYPES else all_values[:, 0]

    def memory_bytes(self) -> int:
        """Return the kernel memory that the map holds."""
        return kernel.memlock_bytes(self.fd)

    def close(self) -> None:
        """Close the descriptor; the kernel frees the map when no program uses it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
