"""One target for each decoder of bytes that come from outside.

A target takes bytes and returns when they were read or refused as the decoder promises; anything else that it raises is
a finding. The seeds are in ``tests/corpus/NAME``.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

from collectors import dns_message, spool_files
from collectors.ingest import connect, formats, jfr, jfr_labels, naming, otlp, pprof_compiled, pprof_stacks
from collectors.ingest.errors import RefusedError
from collectors.ingest.inflate import inflate
from collectors.ingest.upload import from_parameters
from collectors.kubernetes import pods
from collectors.scrapers import annotations, files
from collectors.scrapers.settings import DiscoverySettings
from runtime import kafka_records
from sinks import ledger, letters, rows, stacks
from sinks.embedded import compression, native, request
from sinks.embedded.errors import QueryError
from sinks.embedded.settings import Options
from streams.hotspots import Hotspots
from streams.latency import Latencies
from streams.schema import codec
from streams.schema.errors import CorruptRecordError, SchemaError, SettingsError
from streams.schema.ipc_bounds import inflated_bytes
from streams.schema.messages import RELEASED, SCHEMAS
from streams.schema.topics import ALL
from streams.watermark import Snapshot, WindowSettings
from streams.windows import PartitionWindows
from tests.unit.pprof_agreement import agree, decoded

APPEND_NS = 1_700_000_000_000_000_000
TOPICS = {topic.schema: topic.name for topic in ALL}
NAMES = sorted(SCHEMAS)
BOUND = 4 << 20


def record(data: bytes) -> None:
    """A record: first byte which schema and version, then the value. What passes is made rows and windows of."""
    if not data:
        return
    older, number = divmod(data[0], len(NAMES))
    schema, value = NAMES[number], data[1:]
    versions = sorted(RELEASED[schema], reverse=True)
    try:
        count = inflated_bytes(value)[1]
    except Exception:  # noqa: BLE001 - codec.decode says what it is
        count = 0
    headers = [("schema", f"{schema}/{versions[older % len(versions)]}".encode())]
    headers += [(name, b"x") for name in ("collector", "cluster", "node", "producer")]
    headers += [(name, b"7") for name in ("sequence", "start_ns", "end_ns", "events", "lost")]
    headers.append(("rows", str(max(0, count)).encode()))
    try:
        message = rows.decode(TOPICS[schema], 0, 5, APPEND_NS, headers, value)
        _, interval, batch = codec.decode(headers, value, schema)
    except SchemaError:
        return
    known = stacks.KnownStacks()
    if schema == "profile":
        seen: set[int] = set()
        lean = [rows.lean(message, seen), rows.lean(message, seen)]
        rows.samples(lean)
        stacks.missing(lean, known, 5)
    elif schema == "event":
        rows.events([message, message])
    elif schema != "latency":
        rows.windows([message, message])
    rows.intervals([message])
    if schema in ("profile", "latency") and batch.num_rows < 10_000:
        kind = Hotspots(100) if schema == "profile" else Latencies()
        windows = PartitionWindows(kind, WindowSettings(60, 30), 0, Snapshot())
        windows.take(0, interval, batch, APPEND_NS)
        for name, head, result in windows.flush().results:
            # What the worker publishes, the sink must take.
            value, given = codec.encode(name, result, head)
            rows.decode(TOPICS[name], 0, 5, APPEND_NS, given, value)


def headers(data: bytes) -> None:
    """A record's headers, one ``name=value`` a line; what is buried is found again."""
    given = []
    for line in data.split(b"\n"):
        name, equals, value = line.partition(b"=")
        given.append((name.decode("utf-8", "backslashreplace"), value if equals else None))
    with contextlib.suppress(SchemaError):
        codec.decode_headers(given)
    one = SimpleNamespace(offset=3, timestamp=5, key=b"k", value=data, headers=given)
    key, value, all_ = letters.bury("t", 2, one, "corrupt", data.decode("utf-8", "surrogateescape"), 128 << 10)
    assert sum(len(n.encode()) + len(v or b"") for n, v in all_) + len(value) <= 128 << 10
    letter = letters.read(SimpleNamespace(offset=9, timestamp=5, key=key, value=value, headers=all_))
    assert isinstance(letter, letters.Letter)
    if not letter.cut:
        assert (letter.value, letter.key, list(letter.headers)) == (data, b"k", given)
    letters.read(SimpleNamespace(offset=9, timestamp=5, key=data, value=data, headers=given))


def commit(data: bytes) -> None:
    """The metadata of a commit."""
    text = data.decode("utf-8", "replace")
    ledger.intent_end(5, text)
    with contextlib.suppress(SettingsError):
        Snapshot.unpack(text, 7, WindowSettings(60, 30)).pack(WindowSettings(60, 30))


def profile(data: bytes) -> None:
    """A pprof profile, gzipped or not: by machine code it is what it is without."""
    found, ours = decoded(data, BOUND), decoded(data, BOUND, inflate, pprof_compiled.read, pprof_stacks.stacks)
    if isinstance(found, str):
        assert ours == found
        return
    assert found.values.shape == (len(found.texts), len(found.types))
    assert ours.texts == found.texts
    assert ours.values.tolist() == found.values.tolist()


def tables(data: bytes) -> None:
    """The wire of a pprof profile: the compiled reader and NumPy's agree on it."""
    agree(data)


def recording(data: bytes) -> None:
    """A JFR recording, gzipped or not; and the labels that are sent beside one."""
    with contextlib.suppress(CorruptRecordError):
        for part in jfr.decode(data, bound=BOUND):
            assert part.profile.values.shape == (len(part.profile.texts), 2)
    with contextlib.suppress(CorruptRecordError):
        jfr_labels.contexts(data)


def export(data: bytes) -> None:
    """An OTLP profiles request, in JSON when it looks like it."""
    with contextlib.suppress(CorruptRecordError):
        for one in otlp.decode(data, otlp.JSON if data[:1] == b"{" else otlp.PROTO, BOUND):
            assert one.profile.values.shape == (len(one.profile.texts), 1)


FORM = "multipart/form-data; boundary=xYzZyX"
UPLOADS = ("folded", "lines", "speedscope", "pprof", "jfr", "trie", "tree")


def upload(data: bytes) -> None:
    """A push: first byte which of ``UPLOADS``, as a form from 16 on, or Connect's protobuf or JSON; then the body."""
    if not data:
        return
    kind, body = data[0], data[1:]
    try:
        if kind % 16 < len(UPLOADS):
            parameters = {"name": "app{version=v1}", "format": UPLOADS[kind % 16], "from": "1700000000"}
            found = formats.decode(body, from_parameters(parameters, FORM if kind >= 16 else ""))
        else:
            found = connect.decode(body, connect.JSON if kind % 2 else connect.PROTO)
    except RefusedError:
        return
    for one in found:
        assert one.profile.values.shape == (len(one.profile.texts), len(one.profile.types))
        with contextlib.suppress(RefusedError):
            naming.columns(one)


def http(data: bytes) -> None:
    """A request: target, content encoding and body, on a line each; and its framed blocks."""
    line, _, rest = data.partition(b"\n")
    encoding, _, body = rest.partition(b"\n")
    for parts in ([body], [body[i : i + 7] for i in range(0, min(len(body), 700), 7)]):
        try:
            _path, parameters = request.parameters_of(line.decode("latin-1"))
            chunks = compression.decoded(encoding.decode("latin-1"), iter(parts), BOUND)
            read = request.read(Options(), "POST", parameters, {}, chunks)
            for _ in read.body:
                pass
        except QueryError:
            pass
        try:
            for _ in compression.unframed(iter(parts)):
                pass
        except QueryError:
            pass
    compression.choose(line.decode("latin-1"))


def blocks(data: bytes) -> None:
    """Native blocks. They come from the engine: whatever they are, it ends, with an error of the expected kinds."""
    try:
        for _ in native.revised(iter([data]), 54_460):
            pass
    except (QueryError, IndexError, UnicodeDecodeError, ValueError, OverflowError):
        pass


def spool(data: bytes) -> None:
    """A spool's segment, and its two small files."""
    file = io.BytesIO(data)
    while (found := spool_files.parse(file)) is not None:
        assert found.length > 0
    directory = Path(_DIRECTORY.name)
    for name in ("acked", "ledger.json"):
        (directory / name).write_bytes(data)
    spool_files.read_acked(directory)
    spool_files.read_ledger(directory)


def batch(data: bytes) -> None:
    """A fetch of Kafka's record batches."""
    from aiokafka.errors import CorruptRecordException

    kafka_records.MAX_INFLATED = BOUND
    try:
        found = kafka_records.Records(data)
        while found.has_next():
            if bytes(found._next_slice[16:17]) < b"\x02":
                return  # of a format that no broker of today stores
            one = found.next_batch()
            for number, item in enumerate(one):
                letters.read(item)
                if number > 1000:
                    break
    except CorruptRecordException:
        pass


def discovery(data: bytes) -> None:
    """A file of scrape targets; or a pod as the Kubernetes API gives it."""
    if data[:1] != b"{":
        with contextlib.suppress(SettingsError):
            for target in files.parse(data, DiscoverySettings()):
                assert target.url("profile").isascii() or target.path
        return
    try:
        pod = pods.read(json.loads(data))
    except (ValueError, RecursionError):
        return
    index = pods.Pods()
    index.replace([pod])
    targets, _refused = annotations.annotated(index.all(), DiscoverySettings())
    assert all(target.intervals() for target in targets)


def dns(data: bytes) -> None:
    """A packet to or from port 53."""
    message = dns_message.parse(data)
    if message is not None:
        assert len(message.name) <= 4 * dns_message.MAX_NAME
        assert message.name.isprintable()
        assert len(message.addresses) <= dns_message.MAX_RECORDS
        assert message.code_name


def broken(data: bytes) -> None:
    """Ends the process, hangs or raises, to see that the driver finds it. Not run otherwise."""
    if data[:2] == b"\x7f!":
        ctypes.string_at(0)
    if data[:2] == b"\x7f?":
        while True:
            pass
    if data[:2] == b"\x7f.":
        raise RuntimeError("found")


_DIRECTORY = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)

TARGETS: MappingProxyType[str, Callable[[bytes], None]] = MappingProxyType(
    {
        "record": record,
        "headers": headers,
        "commit": commit,
        "pprof": profile,
        "pprof_tables": tables,
        "jfr": recording,
        "otlp": export,
        "upload": upload,
        "http": http,
        "native": blocks,
        "spool": spool,
        "batch": batch,
        "discovery": discovery,
        "dns": dns,
    }
)
