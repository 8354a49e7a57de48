"""Questions and their answers: one record for each question, when it is answered or given up.

Pure: time is passed in. A question that is forwarded inside the node (to another address, through another network
namespace) is seen several times under one number; the first one counts. Cost: about 10 microseconds a packet.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.addresses import BYTES

GIVE_UP_NS = 5_000_000_000
"""As long as resolvers wait by default (resolv.conf(5))."""
FORWARDED_NS = 100_000_000
MAX_PENDING = 8192
QUESTION, ANSWER, CALL = 0, 1, 2
CALL_BYTES, DATA_BYTES = 64, 512
DETAIL = np.dtype(
    [
        ("addresses", f"V{BYTES}"),
        ("length", "u2"),
        ("what", "u2"),
        ("pad", "u4"),
        ("call", f"S{CALL_BYTES}"),
        ("data", f"V{DATA_BYTES}"),
    ]
)
"""``struct seen`` of ``bpf/dns.bpf.c``."""
_DATA_AT = DETAIL.itemsize - DATA_BYTES


class Pairs:
    """Takes records as the kernel sends them, gives those that are complete.

    A finished record has the answer's time and detail and the question's process; latency is between the two, result
    the response code. One that was given up has the question's detail and result -ETIMEDOUT.
    """

    def __init__(self) -> None:
        self._pending: OrderedDict[bytes, NDArray[Any]] = OrderedDict()
        self._numbers: dict[bytes, tuple[int, bytes]] = {}
        self.overflowed = 0

    def take(self, records: NDArray[Any], now_ns: int) -> NDArray[Any]:
        """Return what is complete now. ``records`` in the order of their times, ``now_ns`` on the same clock."""
        finished: list[NDArray[Any]] = []
        raw = records["detail"].tobytes()
        details = np.frombuffer(raw, DETAIL)
        kinds, lengths = details["what"].tolist(), details["length"].tolist()
        for at, (what, length) in enumerate(zip(kinds, lengths, strict=True)):
            one, begin = records[at : at + 1], at * DETAIL.itemsize
            if what == CALL:
                finished.append(one)
                continue
            data = raw[begin + _DATA_AT : begin + _DATA_AT + max(length, 4)]
            key = raw[begin : begin + BYTES] + data[:2]
            if what == QUESTION:
                self._ask(key, one, data)
            elif (question := self._forget(key)) is not None:
                finished.append(_answered(question, one, data[3] & 0xF))
        while self._pending:
            key, oldest = next(iter(self._pending.items()))
            if int(oldest["at"][0]) + GIVE_UP_NS > now_ns and len(self._pending) <= MAX_PENDING:
                break
            self._forget(key)
            if int(oldest["at"][0]) + GIVE_UP_NS > now_ns:
                self.overflowed += 1
            else:
                finished.append(_given_up(oldest))
        return np.concatenate(finished) if finished else records[:0]

    def _ask(self, key: bytes, record: NDArray[Any], data: bytes) -> None:
        at, number = int(record["at"][0]), data[:2] + data[12:]
        before = self._numbers.get(number)
        if before and at - before[0] < FORWARDED_NS and before[1] in self._pending:
            return  # the same packet, further on; or sent twice at once
        if key not in self._pending:  # asked again: the wait began with the first
            self._pending[key] = record.copy()
        self._numbers[number] = (at, key)

    def _forget(self, key: bytes) -> NDArray[Any] | None:
        record = self._pending.pop(key, None)
        if record is not None:
            raw = record["detail"].tobytes()
            length = int.from_bytes(raw[BYTES : BYTES + 2], "little")
            data = raw[_DATA_AT : _DATA_AT + max(length, 4)]
            self._numbers.pop(data[:2] + data[12:], None)
        return record


def _answered(question: NDArray[Any], answer: NDArray[Any], code: int) -> NDArray[Any]:
    done = question.copy()
    done["detail"] = answer["detail"]
    done["detail"].view(DETAIL)["call"] = question["detail"].view(DETAIL)["call"]
    done["at"] = answer["at"]
    done["latency"] = max(0, int(answer["at"][0]) - int(question["at"][0]))
    done["result"] = code
    return done


def _given_up(question: NDArray[Any]) -> NDArray[Any]:
    done = question.copy()
    done["at"] += GIVE_UP_NS
    done["latency"] = GIVE_UP_NS
    done["result"] = -errno.ETIMEDOUT
    return done
