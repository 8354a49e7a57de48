"""CityHash128 of version 1.0.2, with which ClickHouse checks its compressed blocks; later CityHash versions differ.

Plain Python, about 10 MB/s of compressed data: it is only needed by clients that ask for ClickHouse's own framing
(``compress=1``); content encodings do without. Source of the algorithm: G. Pike and J. Alakuijala, CityHash 1.0.2.
"""

from __future__ import annotations

import struct

_M = 0xFFFFFFFFFFFFFFFF
_K0 = 0xC3A5C85C97CB3127
_K1 = 0xB492B66FBE98F273
_K2 = 0x9AE16A3B2F90404F
_K3 = 0xC949D7C7509E6557
_MUL = 0x9DDFEA08EB382D69
_SIXTEEN = struct.Struct("<16Q")
_FOUR = struct.Struct("<4Q")
_Pair = tuple[int, int]


def city_hash_128(data: bytes) -> bytes:
    """Return the hash as the 16 bytes that stand before a block (low half first, little endian)."""
    size = len(data)
    if size >= 16:
        low, high = _seeded(data[16:], _word(data, 0) ^ _K3, _word(data, 8))
    elif size >= 8:
        low, high = _seeded(b"", _word(data, 0) ^ (size * _K0 & _M), _word(data, size - 8) ^ _K1)
    else:
        low, high = _seeded(data, _K0, _K1)
    return struct.pack("<2Q", low, high)


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _rotate(value: int, by: int) -> int:
    value &= _M
    return (value >> by | value << (64 - by)) & _M if by else value


def _mix(value: int) -> int:
    value &= _M
    return value ^ (value >> 47)


def _join(low: int, high: int) -> int:
    a = ((low ^ high) & _M) * _MUL & _M
    a ^= a >> 47
    b = ((high ^ a) & _M) * _MUL & _M
    b ^= b >> 47
    return b * _MUL & _M


def _short(data: bytes) -> int:
    size = len(data)
    if size > 8:
        a, b = _word(data, 0), _word(data, size - 8)
        return _join(a, _rotate(b + size, size)) ^ b
    if size >= 4:
        a = int.from_bytes(data[:4], "little")
        return _join(size + (a << 3), int.from_bytes(data[-4:], "little"))
    if size:
        y = data[0] + (data[size >> 1] << 8)
        z = size + (data[-1] << 2)
        return _mix(y * _K2 ^ z * _K3) * _K2 & _M
    return _K2


def _murmur(data: bytes, a: int, b: int) -> _Pair:
    size = len(data)
    if size <= 16:
        a = _mix(a * _K1) * _K1 & _M
        c = (b * _K1 + _short(data)) & _M
        d = _mix(a + (_word(data, 0) if size >= 8 else c))
    else:
        c = _join((_word(data, size - 8) + _K1) & _M, a)
        d = _join((b + size) & _M, (c + _word(data, size - 16)) & _M)
        a = (a + d) & _M
        for at in range(0, size - 16, 16):
            a = (a ^ (_mix(_word(data, at) * _K1) * _K1 & _M)) * _K1 & _M
            b ^= a
            c = (c ^ (_mix(_word(data, at + 8) * _K1) * _K1 & _M)) * _K1 & _M
            d ^= c
    a = _join(a, c)
    b = _join(d, b)
    return a ^ b, _join(b, a)


def _weak(words: tuple[int, ...], a: int, b: int) -> _Pair:
    w, x, y, z = words
    a += w
    b = _rotate(b + a + z, 21)
    c = a
    a += x + y
    b += _rotate(a, 44)
    return (a + z) & _M, (b + c) & _M


def _seeded(data: bytes, low: int, high: int) -> _Pair:
    size = len(data)
    if size < 128:
        return _murmur(data, low, high)
    x, y, z = low, high, size * _K1 & _M
    v0 = (_rotate(y ^ _K1, 49) * _K1 + _word(data, 0)) & _M
    v1 = (_rotate(v0, 42) * _K1 + _word(data, 8)) & _M
    w0 = (_rotate(y + z, 35) * _K1 + x) & _M
    w1 = _rotate(x + _word(data, 88), 53) * _K1 & _M
    whole = size - size % 128
    # The hot loop: two rounds of 64 bytes, written out, for calls cost more than arithmetic here.
    for words in _SIXTEEN.iter_unpack(memoryview(data)[:whole]):
        for p in (words[:8], words[8:]):
            t = (x + y + v0 + p[2]) & _M
            x = (t >> 37 | t << 27) * _K1 & _M ^ w1
            t = (y + v1 + p[6]) & _M
            y = (t >> 42 | t << 22) * _K1 & _M ^ v0
            t = z ^ w0
            z = (t >> 33 | t << 31) & _M
            a = (v1 * _K1 + p[0]) & _M
            t = (x + w0 + a + p[3]) & _M
            b = (t >> 21 | t << 43) & _M
            c = a
            a = (a + p[1] + p[2]) & _M
            v0, v1 = (a + p[3]) & _M, (b + (a >> 44 | a << 20) + c) & _M
            a = (z + w1 + p[4]) & _M
            t = (y + a + p[7]) & _M
            b = (t >> 21 | t << 43) & _M
            c = a
            a = (a + p[5] + p[6]) & _M
            w0, w1 = (a + p[7]) & _M, (b + (a >> 44 | a << 20) + c) & _M
            z, x = x, z
    y = (y + _rotate(w0, 37) * _K0 + z) & _M
    x = (x + _rotate(v0 + z, 49) * _K0) & _M
    for back in range(32, size - whole + 32, 32):
        at = size - back
        y = (_rotate(y - x, 42) * _K0 + v1) & _M
        w0 = (w0 + _word(data, at + 16)) & _M
        x = (_rotate(x, 49) * _K0 + w0) & _M
        w0 = (w0 + v0) & _M
        v0, v1 = _weak(_FOUR.unpack_from(data, at), v0, v1)
    x = _join(x, v0)
    y = _join(y, w0)
    return (_join((x + v1) & _M, w1) + y) & _M, _join((x + w1) & _M, (y + v1) & _M)
