"""Two network namespaces and a wire between them that the test can cut, delay and count; no netem, no filter."""

import contextlib
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import threading
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor

NEWNET, TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x40000000, 0x400454CA, 1, 0x1000
LEFT, RIGHT = "10.77.0.1", "10.77.0.2"
FIN, SYN, ACK = 1, 2, 16
_libc = ctypes.CDLL(None, use_errno=True)


def apart(work):
    """Return what ``work`` returns in a thread of its own, whose namespaces nobody else uses."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def alone(work):
    """Return what ``work`` returns in a network namespace of its own, with loopback."""

    def run():
        check(_libc.unshare(NEWNET))
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return work()

    return apart(run)


class Segment:
    """What a TCP segment over IPv4 says."""

    def __init__(self, packet):
        at = (packet[0] & 15) * 4
        self.source, self.target, self.sequence = struct.unpack_from(">HHI", packet, at)
        self.flags = packet[at + 13]
        self.size = struct.unpack_from(">H", packet, 2)[0] - at - (packet[at + 12] >> 4) * 4

    @property
    def identity(self):
        return self.source, self.target, self.sequence, self.flags & (SYN | FIN), self.size

    @property
    def takes_room(self):
        return self.size > 0 or self.flags & (SYN | FIN)


class Wire:
    """``lose(segment)`` says of the first copy of each whether it is lost; ``delay_s`` is one way's."""

    def __init__(self, lose=lambda _segment: False, delay_s=0.0):
        self._lose, self._delay_s = lose, delay_s
        self.copies = Counter()  # of segments that take room in the sequence, by what they are
        self.segments = {}
        self._stop, self._wake = os.pipe()

    def __enter__(self):
        (self._left, self._one), (self._right, self._other) = (
            apart(lambda at=at: self._end(at)) for at in (LEFT, RIGHT)
        )
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()
        return self

    def _end(self, address):
        check(_libc.unshare(NEWNET))
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN | IFF_NO_PI))
        for words in (f"address add {address}/24 dev wire", "link set wire up", "link set lo up"):
            subprocess.run(["ip", *words.split()], check=True)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY), fd

    def _carry(self):
        queue = deque()
        ends = {self._one: self._other, self._other: self._one}
        while True:
            wait = max(0, queue[0][0] - time.monotonic()) if queue else None
            ready = select.select([*ends, self._stop], [], [], wait)[0]
            if self._stop in ready:
                return
            for fd in ready:
                with contextlib.suppress(BlockingIOError):
                    packet = os.read(fd, 65536)
                    if self._passes(packet):
                        queue.append((time.monotonic() + self._delay_s, ends[fd], packet))
            while queue and queue[0][0] <= time.monotonic():
                _at, fd, packet = queue.popleft()
                os.write(fd, packet)

    def _passes(self, packet):
        if packet[0] >> 4 != 4 or packet[9] != 6:
            return True
        segment = Segment(packet)
        if not segment.takes_room:
            return True
        self.copies[segment.identity] += 1
        self.segments[segment.identity] = segment
        return self.copies[segment.identity] > 1 or not self._lose(segment)

    def left(self, work):
        return self._inside(self._left, work)

    def right(self, work):
        return self._inside(self._right, work)

    def _inside(self, namespace, work):
        def run():
            check(_libc.setns(namespace, NEWNET))
            return work()

        return apart(run)

    def __exit__(self, *_):
        os.write(self._wake, b"x")
        self._thread.join()
        for fd in (self._stop, self._wake, self._left, self._right, self._one, self._other):
            os.close(fd)
