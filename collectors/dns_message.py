"""What a DNS message says: question, response code, addresses (RFC 1035, 3596; type 123 as TYPE123 after RFC 3597).

The bytes are anybody's and may be cut: every offset is checked, names are bounded as the RFC bounds them, pointers only
ever lead back, and what does not parse is left out. EDNS is not looked at, so codes above 15 show their low four bits.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

HEADER_BYTES = 12
MAX_NAME = 255
MAX_RECORDS = 32
TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 13: "HINFO", 15: "MX", 16: "TXT", 28: "AAAA", 29: "LOC",
    33: "SRV", 35: "NAPTR", 39: "DNAME", 43: "DS", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 52: "TLSA", 64: "SVCB",
    65: "HTTPS", 251: "IXFR", 252: "AXFR", 255: "ANY", 257: "CAA",
}  # fmt: skip
CODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
         "NOTZONE", "DSOTYPENI")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """``name`` without the final dot, "." for the root, "" when it is damaged; ``addresses`` of A and AAAA records."""

    id: int
    is_answer: bool
    code: int
    name: str = ""
    type: str = ""
    addresses: tuple[str, ...] = ()
    truncated: bool = False

    @property
    def code_name(self) -> str:
        """Return the response code's name."""
        return CODES[self.code] if self.code < len(CODES) else f"RCODE{self.code}"


def parse(data: bytes) -> Message | None:
    """Return what a message says; None when it is shorter than a header."""
    if len(data) < HEADER_BYTES:
        return None
    number, flags, questions, answers = struct.unpack_from(">HHHH", data)
    is_answer, code, truncated = bool(flags & 0x8000), flags & 0xF, bool(flags & 0x0200)
    if questions != 1:
        return Message(number, is_answer, code, truncated=truncated)
    name, at = _name(data, HEADER_BYTES)
    if at is None or at + 4 > len(data):
        return Message(number, is_answer, code, truncated=truncated)
    kind = int.from_bytes(data[at : at + 2])
    found = tuple(_addresses(data, at + 4, min(answers, MAX_RECORDS))) if is_answer else ()
    return Message(number, is_answer, code, name, TYPES.get(kind, f"TYPE{kind}"), found, truncated)


def _addresses(data: bytes, at: int, count: int) -> list[str]:
    found = []
    for _ in range(count):
        _owner, end = _name(data, at)
        if end is None or end + 10 > len(data):
            break
        kind, _class, _ttl, size = struct.unpack_from(">HHIH", data, end)
        at = end + 10 + size
        value = data[end + 10 : at]
        if len(value) < size:
            break
        if (kind, size) in ((1, 4), (28, 16)):
            found.append(str(ipaddress.ip_address(value)))
    return found


def _name(data: bytes, at: int) -> tuple[str, int | None]:
    """Return (the name at an offset, where the next field begins); (..., None) when it is damaged."""
    labels: list[str] = []
    size, end, least = 0, None, at
    while at < len(data):
        length = data[at]
        if length >= 0xC0:
            if at + 2 > len(data):
                break
            target = int.from_bytes(data[at : at + 2]) & 0x3FFF
            if end is None:
                end = at + 2
            if target >= least:  # only ever back, so it ends
                break
            at = least = target
        elif length > 63:
            break
        elif length == 0:
            return ".".join(labels) or ".", at + 1 if end is None else end
        else:
            size += length + 1
            label = data[at + 1 : at + 1 + length]
            if size > MAX_NAME or len(label) < length:
                break
            labels.append("".join(_shown(byte) for byte in label))
            at += 1 + length
    return "", None


def _shown(byte: int) -> str:
    # As zone files write them (RFC 1035, 5.1): a dot inside a label is no separator.
    if byte in b'.\\"':
        return f"\\{chr(byte)}"
    return chr(byte) if 0x21 <= byte <= 0x7E else f"\\{byte:03}"
