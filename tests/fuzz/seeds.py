"""Writes the first inputs of each target: ``python -m tests.fuzz.seeds``. What fuzzing adds has a digest for a name."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib

import pyarrow as pa
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from google.protobuf import json_format

from collectors import spool_files
from sinks.embedded.compression import frame
from streams.schema import codec
from streams.schema.messages import PROFILE_1, SCHEMAS, STACK_1, Interval
from tests.fuzz.run import CORPUS
from tests.fuzz.targets import NAMES
from tests.integration.known_profiles import form, number, piece, pprof, push
from tests.unit.test_codec import event_batch, hotspot_batch, latency_batch, profile_batch
from tests.unit.test_dns import message, name_of
from tests.unit.test_otlp_decode import SAMPLE, request


def records() -> dict[str, bytes]:
    """Each schema, compressed as it travels and not (where a change reaches the columns)."""
    empty = pa.RecordBatch.from_pylist([], schema=SCHEMAS["latency_window"])
    batches = {
        "profile": profile_batch(), "latency": latency_batch(), "event": event_batch(), "hotspot": hotspot_batch(),
        "latency_window": empty,
    }  # fmt: skip
    found = {}
    for name, batch in batches.items():
        first = bytes([NAMES.index(name)])
        found[f"{name}.zstd"] = first + codec.encode(name, batch, Interval("c", "c", "n", "p", 1, 0, 1))[0]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        found[f"{name}.plain"] = first + sink.getvalue().to_pybytes()
    # The same as version 1 had it.
    texts = pa.array(["main\tm.c\t1\nwork\tm.c\t2", "main\tm.c\t1"])
    old = pa.StructArray.from_arrays([pa.array([1, 2], pa.uint64()), texts], fields=list(STACK_1))
    column = pa.DictionaryArray.from_arrays(batches["profile"].column("stack").indices, old)
    at = PROFILE_1.get_field_index("stack")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, PROFILE_1) as writer:
        writer.write_batch(batches["profile"].set_column(at, PROFILE_1.field(at), column))
    found["profile_1.plain"] = bytes([NAMES.index("profile") + len(NAMES)]) + sink.getvalue().to_pybytes()
    return found


def batches() -> dict[str, bytes]:
    """Kafka's record batches, by codec."""
    found = {}
    for kind, name in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        builder = DefaultRecordBatchBuilder(
            2, kind, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=1 << 20
        )
        for at in range(3):
            builder.append(at, 1_000 + at, b"key", b"value" * at, [("schema", b"profile/1"), ("none", None)])
        found[name] = bytes(builder.build())
    return found


def http() -> dict[str, bytes]:
    """Requests: target, encoding, body."""
    text = b'INSERT INTO t (a, b) FORMAT JSONEachRow\n{"a": 1, "b": "x"}\n'
    return {
        "select": b"/?query=SELECT%201&database=d&param_x=1\n\n",
        "tail": b"/?query=SELECT%201\n\n /* c */ FORMAT `x` -- '\n",
        "insert": b"/\nidentity\n" + text,
        "values": b"/?query=INSERT%20INTO%20t%20VALUES\n\n(1, 'a\\'b'), (2, 'c''d')",
        "gzip": b"/\ngzip\n" + gzip.compress(text, mtime=0),
        "deflate": b"/\ndeflate\n" + zlib.compress(text),
        "zstd": b"/\nzstd\n" + pa.compress(text, "zstd", asbytes=True),
        "frames": b"/\n\n" + frame(b"abc" * 50, "LZ4") + frame(b"abc" * 9, "ZSTD") + frame(b"x", "NONE"),
    }


def native() -> dict[str, bytes]:
    """Blocks of one column each."""

    def block(kind: bytes, rows: int, body: bytes) -> bytes:
        return bytes([1, rows, 1]) + b"a" + bytes([len(kind)]) + kind + body

    count = struct.Struct("<Q").pack
    return {
        "string": block(b"String", 2, b"\x01a\x02bc"),
        "array": block(b"Array(Nullable(UInt8))", 2, count(1) + count(2) + b"\0\1\2\3"),
        "tuple": block(b"Tuple(a UInt8, b String)", 1, b"\1\1x"),
        "map": block(b"Map(String, Array(UInt16))", 1, count(1) + b"\1k" + count(1) + b"\1\0"),
        "low": block(b"LowCardinality(String)", 2, count(1) + count(0x200) + count(2) + b"\0\1a" + count(2) + b"\0\1"),
        "decimal": block(b"Decimal(18, 3)", 1, bytes(8)) + block(b"FixedString(3)", 1, b"abc"),
    }


def spools() -> dict[str, bytes]:
    """A segment, and the files beside it."""
    message = spool_files.Message("t", b"key", (("schema", b"profile/1"),), b"value", "cpu", 7)
    packed = spool_files.pack(message, 1, 2)
    return {
        "segment": packed + spool_files.pack(message, 0, 3) + packed[:9],
        "acked": struct.pack("<QQ", 1, 40),
        "ledger": b'{"number": 3, "owed": {"cpu": 7}, "dropped": [1, 2]}',
    }


def headers() -> dict[str, bytes]:
    """The headers of a record and of a dead letter, a line each."""
    _, given = codec.encode("profile", profile_batch(), Interval("c", "c", "n", "p", 1, 0, 1))
    return {
        "record": b"\n".join(name.encode() + b"=" + value for name, value in given),
        "letter": b"topic=t\npartition=2\noffset=5\nreason=corrupt\nerror=x\nkey=k\noriginal.schema=profile/1\nsize=7",
        "note": b"note=replaying\nto=t\npartition=2\nfrom=5",
    }


def otlp() -> dict[str, bytes]:
    """Requests: eBPF samples by their time stamps, several owners and types, and one in JSON."""
    one = [(1, [3], []), (3, [1, 2], [7, 8])]
    owners = [{"service.name": "a", "process.pid": 7}, {"process.executable.path": "/usr/bin/b"}]
    types = request([(0, "cpu", "nanoseconds", 10, one), (1, "samples", "count", 10, one)], owners)
    return {
        "stamps": SAMPLE.SerializeToString(),
        "owners": types.SerializeToString(),
        "json": json_format.MessageToJson(types, indent=None).encode(),
    }


def wires() -> dict[str, bytes]:
    """Profiles that are not gzipped: a change reaches the fields."""
    samples = [(["main", "work"], [7, 9]), (["main"], [1 << 40, 0])]
    known = pprof(samples, [("a", "count"), ("b", "bytes")], time_ns=1, duration_ns=2, period=3, compress=False)
    mappings = piece(3, number(1, 1) + number(2, 4096) + number(5, 1))
    single = piece(2, number(1, 1) + number(1, 2) + number(2, 5) + number(2, 6)) + number(14, 1)
    real = {name: gzip.decompress((CORPUS / "pprof" / f"{name}.pb.gz").read_bytes()) for name in ("mutex", "profile")}
    return {"known": known, "more": known + mappings + single, **real}


def uploads() -> dict[str, bytes]:
    """A body of each format and protocol of the push endpoint."""
    one = pprof([(["main", "work"], [7])], time_ns=1_700_000_000_000_000_000)
    sampled = {"type": "sampled", "name": "a", "unit": "milliseconds", "startValue": 0, "endValue": 9,
               "samples": [[0, 1], [0]], "weights": [2, 5]}  # fmt: skip
    evented = {"type": "evented", "name": "b", "unit": "none", "startValue": 0, "endValue": 9,
               "events": [{"type": "O", "at": 0, "frame": 0}, {"type": "C", "at": 9, "frame": 0}]}  # fmt: skip
    scope = {"shared": {"frames": [{"name": "a", "file": "a.py", "line": 3}, {"name": "b"}]},
             "profiles": [sampled, evented]}  # fmt: skip
    labels = {"__name__": "process_cpu", "service_name": "shop"}
    text = base64.b64encode(one).decode()
    series = [{"labels": [{"name": k, "value": v} for k, v in labels.items()], "samples": [{"rawProfile": text}]}]
    config = b'{"cpu": {"units": "samples", "display-name": "x", "sampled": true, "cumulative": true}}'
    return {
        "folded": b"\x00main;work 7\nmain 3\n",
        "lines": b"\x01main;work\nmain\n",
        "speedscope": b"\x02" + json.dumps(scope).encode(),
        "pprof": b"\x03" + one,
        "trie": b"\x05\0\0\1\5main;\0\2\4work\7\0\4wait\xac\2\0",
        "tree": b"\x06\0\0\1\4main\3\2\4work\7\0\4wait\xac\2\0",
        "form": b"\x13" + form(profile=one, sample_type_config=config, prev_profile=one)[0],
        "connect": b"\x0e" + push([(labels, [one])]),
        "json": b"\x0f" + json.dumps({"series": series}).encode(),
    }


def discovered() -> dict[str, bytes]:
    """A file of scrape targets, and pods."""
    labels = {"service": "a", "__scheme__": "https", "profiles": "heap=60,profile", "__param_seconds": "5"}
    wanted = {"cpu.scrape": "true", "cpu.port_name": "p", "memory.scrape": "true", "memory.port": "6060"}
    annotations = {f"profiles.grafana.com/{name}": value for name, value in wanted.items()}
    pod = {
        "metadata": {"name": "n", "namespace": "ns", "uid": "u", "labels": {"app.kubernetes.io/name": "a"},
                     "annotations": annotations},
        "spec": {"containers": [{"name": "c", "image": "a:v1", "ports": [{"name": "p", "containerPort": 6060}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.7",
                   "containerStatuses": [{"name": "c", "containerID": "containerd://" + "a1" * 32}]},
    }  # fmt: skip
    return {
        "file": json.dumps([{"targets": ["a:1", "[::1]:2"], "labels": labels}, {"targets": ["b:3"]}]).encode(),
        "pod": json.dumps(pod).encode(),
    }


def questions() -> dict[str, bytes]:
    """A question, and an answer with an alias and addresses."""
    answers = [(5, name_of("c.example")), (1, bytes([10, 1, 2, 3])), (28, bytes(15) + b"\1")]
    return {"question": message("a.example"), "answer": message("a.example", question=False, answers=answers)}


ALL = {
    "record": records, "batch": batches, "http": http, "native": native, "spool": spools, "headers": headers,
    "otlp": otlp, "upload": uploads, "discovery": discovered, "dns": questions,
    "pprof_tables": wires,
    "commit": lambda: {"window": b"w1 7 1700000000 1600000000 60 4096", "intent": b'{"perfstream_intent_end": 9}'},
}  # fmt: skip

if __name__ == "__main__":
    for target, make in ALL.items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for file, data in make().items():
            (CORPUS / target / file).write_bytes(data)
