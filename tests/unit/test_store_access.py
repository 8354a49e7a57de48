"""Who is let in, what the settings refuse, and how much runs at once."""

import base64
import threading

import pytest

from runtime.settings import Secret
from sinks.embedded.access import authenticate
from sinks.embedded.errors import QueryError
from sinks.embedded.limits import Slots
from sinks.embedded.settings import Options
from streams.schema.errors import SettingsError

OPEN = Options()
LOCKED = Options(password=Secret("pä ss:word"), reader_username="grafana", reader_password=Secret("look"))


def basic(text):
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def latin(text):
    """A header's value as the standard library hands it on."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize(
    ("headers", "parameters", "reader"),
    [
        ({"X-ClickHouse-User": "default", "X-ClickHouse-Key": latin("pä ss:word")}, {}, False),
        ({"X-ClickHouse-Key": latin("pä ss:word")}, {}, False),
        (basic("default:pä ss:word"), {}, False),
        ({"Authorization": "Bearer pä ss:word"}, {}, False),
        ({}, {"user": "default", "password": "pä ss:word"}, False),
        ({}, {"password": "pä ss:word"}, False),
        (basic("grafana:look"), {}, True),
        ({"X-ClickHouse-User": "grafana", "X-ClickHouse-Key": "look", "Origin": "https://grafana.example"}, {}, True),
    ],
)
def test_let_in(headers, parameters, reader):
    assert authenticate(LOCKED, headers, parameters).reader is reader


@pytest.mark.parametrize(
    ("headers", "parameters", "code", "status"),
    [
        ({}, {}, 194, 401),
        ({"X-ClickHouse-User": "default"}, {}, 194, 401),
        ({"X-ClickHouse-Key": "wrong"}, {}, 516, 403),
        (basic("grafana:pä ss:word"), {}, 516, 403),
        (basic("nobody:look"), {}, 516, 403),
        ({"Authorization": "Basic !!"}, {}, 516, 403),
        ({"Authorization": "Digest x"}, {}, 516, 403),
        # One way is used, not the best of all.
        ({"X-ClickHouse-Key": "wrong"}, {"password": "pä ss:word"}, 516, 403),
    ],
)
def test_refused(headers, parameters, code, status):
    with pytest.raises(QueryError) as error:
        authenticate(LOCKED, headers, parameters)
    assert (error.value.code, error.value.status) == (code, status)
    assert "word" not in str(error.value)[40:].replace("password", "")


def test_without_a_password():
    assert not authenticate(OPEN, {}, {}).reader
    with pytest.raises(QueryError):
        authenticate(OPEN, {"X-ClickHouse-User": "default", "X-ClickHouse-Key": "wrong"}, {})


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://["])
def test_web_pages_from_elsewhere(origin):
    with pytest.raises(QueryError) as error:
        authenticate(OPEN, {"Origin": origin}, {})
    assert error.value.status == 403
    for own in ("http://localhost:3000", "http://127.0.0.1:8123", "http://[::1]:8123"):
        authenticate(OPEN, {"Origin": own}, {})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(host="0.0.0.0"), "PERFSTREAM_STORE_PASSWORD"),
        (Options(host="::", reader_username="r"), "PERFSTREAM_STORE_PASSWORD"),
        (Options(host="0.0.0.0", cert_file="c.pem", allow_plain_http=True), "PERFSTREAM_STORE_PASSWORD"),
        (Options(host="0.0.0.0", password=Secret("x")), "PERFSTREAM_STORE_ALLOW_PLAIN_HTTP"),
        (
            Options(host="0.0.0.0", password=Secret("x"), reader_username="r", cert_file="c.pem"),
            "PERFSTREAM_STORE_READER_PASSWORD",
        ),
        (Options(key_file="k.pem"), "cert_file"),
        (Options(reader_memory_bytes=0), "reader_memory_bytes"),
        (Options(reader_execution_s=0), "reader_execution_s"),
        (Options(reader_username="default"), "must differ"),
        (Options(max_queries=0), "max_queries"),
        (Options(memory_ratio=1.5), "memory_ratio"),
    ],
)
def test_settings_that_are_refused(options, words):
    with pytest.raises(SettingsError, match=words):
        options.check()


def test_settings_that_are_fine():
    Options().check()
    Options(host="localhost").check()
    Options(host="0.0.0.0", password=Secret("x"), cert_file="c.pem", key_file="k.pem").check()
    Options(host="0.0.0.0", password=Secret("x"), allow_plain_http=True).check()


def test_directory(tmp_path):
    assert Options(path=tmp_path / "a" / "b").directory().is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "a?b"):
        with pytest.raises(SettingsError, match=r"directory|path"):
            Options(path=path).directory()


def test_slots():
    slots = Slots(1, 1, 0.05)
    with slots.hold():
        assert slots.running == 1
        with pytest.raises(QueryError) as error, slots.hold():
            pass
        assert error.value.status == 503
    assert slots.running == 0


def test_a_waiting_statement_gets_the_slot_that_comes_free():
    slots = Slots(1, 1, 20.0)
    got = threading.Event()

    def wait():
        with slots.hold():
            got.set()

    waiting = threading.Thread(target=wait)
    with slots.hold():
        waiting.start()
        assert not got.wait(0.05)
    waiting.join(20)
    assert got.is_set()
