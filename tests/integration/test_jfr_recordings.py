"""The JFR decoder against ``jfr print`` on one recording of a real JVM, and on what Pyroscope's Java agent sends."""

import json
import os
import re
import shutil
import subprocess
import threading
import urllib.parse
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from collectors.ingest import form, jfr, jfr_upload, naming, upload
from streams.schema import stacks
from tests.integration.client_programs import java_agent, java_classes, run

pytestmark = pytest.mark.services
SETTINGS = """<?xml version="1.0" encoding="UTF-8"?>
<configuration version="2.0">
  <event name="jdk.ExecutionSample"><setting name="enabled">true</setting><setting name="period">10 ms</setting></event>
  {}
</configuration>"""
EVENT = """<event name="jdk.{}"><setting name="enabled">true</setting><setting name="stackTrace">true</setting>
  <setting name="threshold">0 ms</setting></event>"""
PRINTED = {
    "jdk.ExecutionSample": ("process_cpu", None),
    "jdk.ObjectAllocationInNewTLAB": ("memory", "tlabSize"),
    "jdk.ObjectAllocationOutsideTLAB": ("memory", "allocationSize"),
    "jdk.JavaMonitorEnter": ("mutex", "duration"),
    "jdk.ThreadPark": ("block", "duration"),
}


@pytest.fixture(scope="module")
def agent():
    """The agent's jar."""
    return java_agent()


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """The compiled programs."""
    return java_classes(tmp_path_factory.mktemp("java"))


def ours(parts):
    """Return {metric: {(functions leaf first): [events, amount]}}."""
    found = {}
    for part in parts:
        rows = found.setdefault(part.metric, Counter())
        for text, (count, amount) in zip(part.profile.texts, part.profile.values.tolist(), strict=True):
            frames = tuple((frame.function, frame.line) for frame in reversed(stacks.split(text)))
            rows[frames, "count"] += count
            rows[frames, "amount"] += amount
    return found


def nanoseconds(text):
    """Return an ISO 8601 duration as ``jfr print --json`` writes it."""
    minutes, whole, part = re.fullmatch(r"PT(?:(\d+)M)?(\d+)(?:\.(\d+))?S", text).groups()
    return (int(minutes or 0) * 60 + int(whole)) * 10**9 + int((part or "").ljust(9, "0"))


def hidden(name):
    """A lambda's class without its number and address."""
    return re.sub(r"(\$\$Lambda)\$\d+[+0-9a-fx/]*", r"\1", name).replace("/", ".")


def test_the_jvms_own_recording_as_jfr_print_reads_it(classes, tmp_path):
    settings, recording = tmp_path / "settings.jfc", tmp_path / "a.jfr"
    settings.write_text(SETTINGS.format("".join(EVENT.format(name.partition(".")[2]) for name in list(PRINTED)[1:])))
    start = f"-XX:StartFlightRecording:filename={recording},settings={settings},dumponexit=true"
    run("java", "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", start, "-cp", classes, "Split", 3)
    printed = json.loads(run("jfr", "print", "--json", "--stack-depth", 64, "--events", ",".join(PRINTED), recording))
    expected = {}
    for event in printed["recording"]["events"]:
        metric, amount = PRINTED[event["type"]]
        values = event["values"]
        trace = values["stackTrace"]
        frames = tuple(
            (hidden(f"{frame['method']['type']['name']}.{frame['method']['name']}"), max(0, frame["lineNumber"]))
            for frame in (trace["frames"] if trace else ())
        ) or (("[unknown]", 0),)
        given = 10_000_000 if amount is None else values[amount]
        rows = expected.setdefault(metric, Counter())
        rows[frames, "count"] += 1
        rows[frames, "amount"] += nanoseconds(given) if isinstance(given, str) else given
    found = ours(jfr.decode(recording.read_bytes()))
    assert found.keys() == expected.keys() == {"process_cpu", "memory", "mutex", "block"}
    for metric, rows in expected.items():
        assert found[metric].keys() == rows.keys()
        for key, value in rows.items():
            # ``jfr`` rounds each duration through a floating point number.
            slack = 0 if metric in ("process_cpu", "memory") else 2 * rows[key[0], "count"]
            assert abs(found[metric][key] - value) <= slack, (metric, key)
    cpu = {frames[0][0]: 0 for frames, _ in found["process_cpu"]}
    for (frames, what), value in found["process_cpu"].items():
        cpu[frames[0][0]] += value if what == "count" else 0
    seven, three = cpu["Split.seven"], cpu["Split.three"]
    # Four standard deviations.
    assert seven + three >= 50
    assert abs(seven / (seven + three) - 0.7) < 4 * (0.21 / (seven + three)) ** 0.5


class Sink(BaseHTTPRequestHandler):
    """Keeps what is sent."""

    def do_POST(self):
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append((self.path, self.headers["Content-Type"], body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if len(self.server.bodies) == 2:
            self.server.enough.set()

    def log_message(self, *_):
        pass


@pytest.fixture
def sink():
    """An HTTP server that takes everything."""
    with HTTPServer(("127.0.0.1", 0), Sink) as server:
        server.bodies, server.enough = [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_pyroscopes_agent_sends(agent, classes, sink):
    environment = {
        "PATH": os.environ["PATH"], "PYROSCOPE_SERVER_ADDRESS": f"http://127.0.0.1:{sink.server_port}",
        "PYROSCOPE_APPLICATION_NAME": "split", "PYROSCOPE_LABELS": "version=v1.0", "PYROSCOPE_FORMAT": "jfr",
        "PYROSCOPE_UPLOAD_INTERVAL": "2s", "PYROSCOPE_PROFILER_EVENT": "itimer", "PYROSCOPE_PROFILER_ALLOC": "512k",
        "PYROSCOPE_PROFILER_LOCK": "1ms",
    }  # fmt: skip
    command = [shutil.which("java"), "-Xmx64m", f"-javaagent:{agent}", "-cp", f"{classes}:{agent}", "Labelled", "60"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert sink.enough.wait(50), "the agent has sent nothing"
        process.kill()
        process.communicate()
    labelled = Counter()
    for path, content_type, body in sink.bodies[:2]:
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query))
        given = upload.from_parameters(query, content_type)
        assert given.format == "jfr"
        series = jfr_upload.decode(body, given)
        assert {one.labels["service_name"] for one in series} == {"split"}
        assert {one.labels["version"] for one in series} == {"v1.0"}
        types = [name for one in series for name in naming.columns(one).types]
        assert len(set(types)) == len(types)
        # The agent's own threads wait for locks now and then.
        waits = {"mutex_contentions", "mutex_delay", "block_contentions", "block_delay"}
        assert set(types) - waits == {"alloc_objects", "alloc_space", "process_cpu"}
        parts = form.fields(body, content_type)
        for part in jfr.decode(parts["jfr"], parts["labels"]):
            # Within a second of when the agent says it was.
            assert given.start_ns - 10**9 <= part.profile.time_ns <= given.end_ns + 10**9
            labelled[part.metric, part.labels.get("tier")] += int(part.profile.values[:, 0].sum())
    gold, tin = labelled["process_cpu", "gold"], labelled["process_cpu", "tin"]
    assert gold + tin >= 50
    # Allocation takes some of the time beside three.
    assert 0.5 < gold / (gold + tin) < 0.8
    assert labelled["memory", "tin"] > 100 * max(1, labelled["memory", "gold"])
