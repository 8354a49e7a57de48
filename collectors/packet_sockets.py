"""Packet sockets (packet(7)) in this network namespace and, where the rights allow, in those of all processes.

A socket sees the packets of its own namespace only. Opening one elsewhere asks for CAP_SYS_ADMIN; without it, as in the
agent, only what crosses the node's own interfaces is seen, which pods' packets to another node or pod do.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from streams.schema.errors import KernelError

MAX_NAMESPACES = 256
AGAIN_S = 5.0
SHARE = 100
_ALL, _NEWNET = 3, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class PacketSockets:
    """One socket for each namespace; ``attach`` gives a new one its filter."""

    def __init__(self, attach: Callable[[socket.socket], None], proc: Path = Path("/proc")) -> None:
        self._attach, self._proc = attach, proc
        self._open: dict[int, socket.socket] = {}
        self._confined = False
        self._at = 0.0

    def open(self) -> None:
        """Open the one of this namespace.

        Raises:
            KernelError: CAP_NET_RAW is missing.
        """
        self._open[self._inode("self")] = self._socket()

    def refresh(self) -> None:
        """Open sockets where there are new namespaces, and let go of those that no process is in any more.

        When it is time to: every ``AGAIN_S``, but never in more than a hundredth of the time.
        """
        began = time.monotonic()
        if began < self._at:
            return
        self._look()
        took = time.monotonic() - began
        self._at = began + max(AGAIN_S, SHARE * took)

    def _look(self) -> None:
        there = dict(self._namespaces())
        for inode in self._open.keys() - there.keys() - {self._inode("self")}:
            self._open.pop(inode).close()  # it would keep the namespace alive
        for inode, path in there.items():
            if inode not in self._open and not self._confined and len(self._open) < MAX_NAMESPACES:
                self._open_in(inode, path)

    def _namespaces(self) -> Iterator[tuple[int, Path]]:
        for process in self._proc.iterdir():
            if process.name.isdigit():
                with suppress(OSError):
                    yield self._inode(process.name), process / "ns/net"

    def _inode(self, process: str) -> int:
        return (self._proc / process / "ns/net").stat().st_ino

    def _open_in(self, inode: int, path: Path) -> None:
        made: list[socket.socket | OSError] = []

        def enter() -> None:
            # A namespace belongs to a thread; this one ends here, so nothing has to be put back.
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    if _libc.setns(fd, _NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(fd)
                made.append(self._socket())
            except OSError as error:
                made.append(error)
            except KernelError as error:
                made.append(OSError(errno.EPERM, str(error)))

        thread = threading.Thread(target=enter, name="packet-socket")
        thread.start()
        thread.join()
        if isinstance(made[0], socket.socket):
            self._open[inode] = made[0]
        elif made[0].errno == errno.EPERM:
            self._confined = True

    def _socket(self) -> socket.socket:
        try:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ALL))
        except PermissionError as error:
            raise KernelError("a packet socket needs CAP_NET_RAW; run as root") from error
        except OSError as error:
            raise KernelError(f"cannot open a packet socket: {error.strerror}; CONFIG_PACKET=y is needed") from error
        self._attach(made)
        with suppress(BlockingIOError):  # what came before the filter
            while made.recv(1):
                pass
        return made

    def close(self) -> None:
        """Close all."""
        for each in self._open.values():
            each.close()
        self._open.clear()
