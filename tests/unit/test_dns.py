"""DNS messages and the pairing of questions with answers."""

import errno
import struct

import numpy as np
import pytest

from collectors import dns_pairs
from collectors.dns_message import parse
from collectors.dns_pairs import ANSWER, CALL, DETAIL, FORWARDED_NS, GIVE_UP_NS, QUESTION, Pairs

A, AAAA, CNAME = 1, 28, 5
RECORD = np.dtype([("at", "u8"), ("latency", "u8"), ("pid", "u4"), ("result", "i4"), ("detail", f"V{DETAIL.itemsize}")])


def name_of(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".") if label) + b"\0"


def message(name, kind=A, *, number=7, code=0, answers=(), question=True, flags=0):
    """Return a message; ``answers`` are (type, data), owned by the question's name. A code makes it an answer."""
    head = struct.pack(">HHHHHH", number, (0 if question else 0x8000) | code | flags, 1, len(answers), 0, 0)
    body = (name if isinstance(name, bytes) else name_of(name)) + struct.pack(">HH", kind, 1)
    for each, data in answers:
        body += b"\xc0\x0c" + struct.pack(">HHIH", each, 1, 60, len(data)) + data
    return head + body


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (message("www.example.com"), (False, 0, "www.example.com", "A", ())),
        (message(".", 2), (False, 0, ".", "NS", ())),
        (message("x.", 65280), (False, 0, "x", "TYPE65280", ())),
        (message("no.such", code=3, question=False), (True, 3, "no.such", "A", ())),
        (message("a.b", question=False, answers=[(CNAME, name_of("c.d")), (A, bytes([10, 1, 2, 3])),
                                                 (AAAA, bytes(15) + b"\1")]),
         (True, 0, "a.b", "A", ("10.1.2.3", "::1"))),
        # Hostile or cut: what cannot be is left out, the rest stands.
        (message(b"\xc0\x0c", question=False), (True, 0, "", "", ())),
        (message(b"\x01a\xc0\x0c", question=False), (True, 0, "", "", ())),
        (message(b"\xc0", question=False)[:13], (True, 0, "", "", ())),
        (message(b"\x80abc"), (False, 0, "", "", ())),
        (message(".".join(["a" * 63] * 5)), (False, 0, "", "", ())),
        (message("a.b", question=False, answers=[(A, bytes(4)), (A, bytes(4))])[:-1],
         (True, 0, "a.b", "A", ("0.0.0.0",))),
        (message("a.b", question=False, answers=[(A, bytes(5))]), (True, 0, "a.b", "A", ())),
        (message(b"\x04a.\x1b\\\0"), (False, 0, "a\\.\\027\\\\", "A", ())),
    ],
)  # fmt: skip
def test_messages(data, wanted):
    said = parse(data)
    assert (said.is_answer, said.code, said.name, said.type, said.addresses) == wanted


def test_less_than_a_header_is_no_message_and_no_cut_raises():
    whole = message("a.b", question=False, answers=[(A, bytes(4)), (AAAA, bytes(16))])
    assert [parse(whole[:size]) is None for size in range(len(whole))] == [size < 12 for size in range(len(whole))]


def test_codes_and_truncation():
    assert parse(message("a", code=2, question=False)).code_name == "SERVFAIL"
    assert parse(message("a", code=15, question=False)).code_name == "RCODE15"
    assert parse(message("a", question=False, flags=0x0200)).truncated


def test_a_name_that_is_nothing_but_pointers_ends_soon():
    links = b"".join(struct.pack(">H", 0xC000 | at) for at in range(12, 512, 2))
    assert parse(struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + links).name == ""


def record(at, what, data, *, pid=0, address=b"one", call=b""):
    made = np.zeros(1, RECORD)
    made["at"], made["pid"] = at, pid
    detail = np.zeros(1, DETAIL)
    detail["addresses"], detail["length"], detail["what"], detail["call"] = address, len(data), what, call
    detail["data"] = data.ljust(512, b"\0")
    made["detail"] = detail.view(f"V{DETAIL.itemsize}")
    return made


def told(records):
    what = np.frombuffer(records["detail"].tobytes(), DETAIL)["what"]
    columns = (*(records[name].tolist() for name in ("at", "latency", "pid", "result")), what.tolist())
    return list(zip(*columns, strict=True))


def take(pairs, now, *records):
    return told(pairs.take(np.concatenate(records) if records else np.zeros(0, RECORD), now))


def test_an_answer_ends_its_question_with_the_questions_process():
    pairs = Pairs()
    asked, answer = message("a.b", number=5), message("a.b", number=5, code=3, question=False)
    assert take(pairs, 100, record(100, QUESTION, asked, pid=7, call=b"a")) == []
    done = pairs.take(record(130, ANSWER, answer), 140)
    assert told(done) == [(130, 30, 7, 3, ANSWER)]
    detail = np.frombuffer(done["detail"].tobytes(), DETAIL)[0]
    assert detail["call"] == b"a"
    assert parse(detail["data"].tobytes()).code_name == "NXDOMAIN"
    # The second answer, and one to nobody's question, are nothing.
    assert take(pairs, 150, record(150, ANSWER, answer), record(150, ANSWER, answer, address=b"two")) == []


def test_numbers_and_addresses_tell_questions_apart():
    pairs = Pairs()
    asked = [
        record(100, QUESTION, message("a.b", number=5), pid=1),
        record(101, QUESTION, message("a.b", AAAA, number=6), pid=2),
        record(102, QUESTION, message("c.d", number=5), pid=3, address=b"two"),
    ]
    assert take(pairs, 110, *asked) == []
    answers = [
        record(120, ANSWER, message("c.d", number=5, question=False), address=b"two"),
        record(121, ANSWER, message("a.b", AAAA, number=6, question=False)),
        record(122, ANSWER, message("a.b", number=5, question=False)),
    ]
    assert [(pid, latency) for _, latency, pid, _, _ in take(pairs, 130, *answers)] == [(3, 18), (2, 20), (1, 22)]


def test_what_is_not_answered_is_given_up_once():
    pairs = Pairs()
    assert take(pairs, 100, record(100, QUESTION, message("a.b"), pid=7)) == []
    assert take(pairs, 99 + GIVE_UP_NS) == []
    assert take(pairs, 100 + GIVE_UP_NS) == [(100 + GIVE_UP_NS, GIVE_UP_NS, 7, -errno.ETIMEDOUT, QUESTION)]
    assert take(pairs, 200 + GIVE_UP_NS, record(150 + GIVE_UP_NS, ANSWER, message("a.b", question=False))) == []
    assert pairs.overflowed == 0


def test_asked_again_it_waits_since_the_first_time():
    pairs = Pairs()
    again = record(100 + 2 * FORWARDED_NS, QUESTION, message("a.b"), pid=7)
    assert take(pairs, 0, record(100, QUESTION, message("a.b"), pid=7), again) == []
    answer = record(101 + 2 * FORWARDED_NS, ANSWER, message("a.b", question=False))
    assert [latency for _, latency, *_ in take(pairs, 0, answer)] == [1 + 2 * FORWARDED_NS]


def test_a_question_that_is_forwarded_counts_once_and_is_its_first_senders():
    pairs = Pairs()
    seen = [
        record(100 + n, QUESTION, message("a.b"), pid=7 - n, address=where) for n, where in enumerate([b"pod", b"node"])
    ]
    answers = [
        record(130 + n, ANSWER, message("a.b", question=False), address=where)
        for n, where in enumerate([b"node", b"pod"])
    ]
    assert take(pairs, 140, *seen, *answers) == [(131, 31, 7, 0, ANSWER)]
    # Long after, the same number and name are a new question.
    later = record(200 + FORWARDED_NS, QUESTION, message("a.b"), pid=9, address=b"node")
    assert take(pairs, 0, later) == []
    answer = record(203 + FORWARDED_NS, ANSWER, message("a.b", question=False), address=b"node")
    assert [pid for _, _, pid, _, _ in take(pairs, 0, answer)] == [9]


def test_calls_pass_as_they_are():
    assert take(Pairs(), 10, record(5, CALL, b"", pid=4, call=b"localhost")) == [(5, 0, 4, 0, CALL)]


def test_too_many_at_once_are_bounded_and_counted(monkeypatch):
    monkeypatch.setattr(dns_pairs, "MAX_PENDING", 13)
    pairs = Pairs()
    asked = [record(n, QUESTION, message("a.b", number=n)) for n in range(20)]
    assert take(pairs, 20, *asked) == []
    assert pairs.overflowed == 7
    assert len(pairs._pending) == len(pairs._numbers) == 13
