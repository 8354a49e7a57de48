"""CityHash128 1.0.2 against digests made with the Go library that ClickHouse's own Go client uses."""

import hashlib

import pytest

from sinks.embedded.cityhash import city_hash_128

DATA = bytes((i * i * 31 + i * 7 + 3) & 0xFF for i in range(1100))
KNOWN = {
    0: "2b9ac064fc9df03d291ee592c340b53c",
    1: "555db5cc909437391f57cd6430b1f22a",
    3: "cbcf8690335ba94edd83b448daed6809",
    4: "5b8d760048290d28581b48ff5294bb4b",
    8: "d9f04c62d6f31b4e8f3b71037ab9787c",
    9: "9c65964ffb5f64a5fd5d7ba9c4a97a70",
    15: "38aba406cb19efa6b57419f852ecaa91",
    16: "bd00d1f4e93234e27ef34a98ae10e1a9",
    17: "48406d65ddfcf4fd920ed5a209cbebf9",
    127: "f89c90e2398eb72c99e1aabf2a69ca96",
    128: "1dcab8f407ffe97e4068c8834760105d",
    129: "e7735080823276288d3a09efdd60cdc5",
    1000: "2022dc0e7515d7dc74e6045a39db328e",
}


@pytest.mark.parametrize("size", KNOWN)
def test_known_digest(size):
    assert city_hash_128(DATA[:size]).hex() == KNOWN[size]


def test_every_length():
    digests = b"".join(city_hash_128(DATA[:size]) for size in range(1100))
    assert hashlib.sha256(digests).hexdigest() == "098b8e027915cf44866e1d335989e0741e876a2385d52e1e4b3a3d3569519897"
