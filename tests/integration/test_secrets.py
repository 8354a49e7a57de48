"""No secret in an output, a page of ``/metrics`` or ``/healthz``, or a command line, whatever goes wrong."""

import json
import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from collectors.settings import AgentSettings
from deploy.broker import free_port
from runtime.settings import Secret, load
from sinks.embedded.settings import StoreSettings
from sinks.settings import SinkSettings
from streams.settings import WorkerSettings

pytestmark = pytest.mark.services
ROOT = Path(__file__).parents[2]
TOML = """\
[kafka]
bootstrap_servers = "127.0.0.1:1"
security_protocol = "SASL_PLAINTEXT"
sasl_username = "me"
sasl_password = "canary-kafka"
ssl_keypassword = "canary-key"
[kafka.options]
sasl_kerberos_service_name = "canary-option"
[clickhouse]
dsn = "http://me:canary-dsn@127.0.0.1:1/perfstream"
password = "canary-clickhouse"
[store]
password = "canary-store"
reader_username = "reader"
reader_password = "canary-reader"
[grafana]
url = "http://127.0.0.1:1"
token = "canary-token"
password = "canary-grafana"
[spool]
directory = "{spool}"
[agent]
collectors = ["none"]
interval_s = 1
[[agent.scrape]]
address = "http://127.0.0.1:1/debug/pprof/heap"
authorization = "Bearer canary-scrape"
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "perfstream.toml"
    path.write_text(TOML.replace("{spool}", str(tmp_path / "spool")))
    return path


def environment(given):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERFSTREAM_")}
    return kept | {"MALLOC_ARENA_MAX": "2"} | {name: str(value) for name, value in given.items()}


def command(environ, *arguments):
    """Run a command to its end; (exit code, everything that it wrote)."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *map(str, arguments)], cwd=ROOT, env=environment(environ),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def page(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()
    except OSError:
        return ""


@pytest.mark.parametrize(("name", "red"), [("agent", True), ("sink", True), ("store", False)])
def test_a_process_in_trouble_shows_no_secret(config, tmp_path, name, red):
    port, log = free_port(), tmp_path / "log"
    more = ["--path", str(tmp_path / "data"), "--port", str(free_port())] if name == "store" else []
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", name, *more], cwd=ROOT, stdout=out, stderr=out,
            env=environment({
                "PERFSTREAM_CONFIG": config, "PERFSTREAM_HTTP_PORT": port, "PERFSTREAM_LOG_LEVEL": "debug",
            }),
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        health = ""
        while not health or json.loads(health)["ok"] is red or (red and "refused" not in health):
            assert time.monotonic() < deadline, log.read_text() + health
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
            health = page(port, "healthz")
        texts = [health, page(port, "metrics"), Path(f"/proc/{process.pid}/cmdline").read_text()]
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((_other_address(), port), timeout=2)
    finally:
        process.terminate()
        process.wait(20)
    texts.append(log.read_text())
    assert texts[1].startswith("# ")
    assert not [line for text in texts for line in text.splitlines() if "canary" in line]


def _other_address():
    """An address of this machine that is not 127.0.0.1; what listens on every address answers there, too."""
    return "127.0.0.2"


@pytest.mark.parametrize(
    "arguments",
    [("worker",), ("topics", "apply"), ("migrate",), ("profile", "top"), ("profile", "types"), ("dashboards", "check"),
     ("dashboards", "push"), ("scrape", "http://127.0.0.1:1/debug/pprof/heap"),
     ("scrape", "http://me:canary-url@127.0.0.1:1/debug/pprof/heap")],
)  # fmt: skip
def test_a_command_that_fails_shows_no_secret(config, arguments):
    code, text = command(
        {"PERFSTREAM_CONFIG": config, "PERFSTREAM_SCRAPE_AUTHORIZATION": "Bearer canary-scrape"}, *arguments
    )
    assert code in (1, 2)
    assert "canary" not in text
    assert "Traceback" not in text
    assert len([line for line in text.splitlines() if not line.startswith("{")]) == 1, text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KAFKA_OPTIONS", "canary-option"),
        ("KAFKA_SECURITY_PROTOCOL", "canary-protocol"),
        ("CLICKHOUSE_OPTIONS", "canary-option"),
        ("CLICKHOUSE_DSN", "http://me:canary/pass@127.0.0.1:1/perfstream"),
        ("CLICKHOUSE_DSN", "http://me:canary@127.0.0.1:many/perfstream"),
    ],
)
def test_a_setting_that_cannot_be_read_shows_no_secret(variable, value):
    for arguments in (
        (("sink",), ("migrate",), ("profile", "top")) if "CLICKHOUSE" in variable else (("topics", "apply"),)
    ):
        code, text = command({f"PERFSTREAM_{variable}": value, "PERFSTREAM_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
                             *arguments)  # fmt: skip
        assert code in (1, 2), text
        assert "canary" not in text
        assert "Traceback" not in text


def test_settings_objects_show_no_secret(config):
    kinds = (AgentSettings, SinkSettings, WorkerSettings, StoreSettings)
    for kind in kinds:
        settings = load(kind, config, {})
        for text in (repr(settings), str(settings), f"{settings}", json.dumps(settings, default=str)):
            assert "canary" not in text, kind
    secret = Secret("canary")
    shown = (str(secret), f"{secret!r} {secret}", "%s" % secret, json.dumps([secret], default=str), repr([secret]))  # noqa: UP031
    assert not [text for text in shown if "canary" in text]
    assert secret.reveal() == "canary"
    assert tomllib.loads(config.read_text())["kafka"]["sasl_password"] == "canary-kafka"


def test_no_command_takes_a_secret_as_an_argument():
    import click

    from deploy.cli import COMMANDS, cli

    def walk(group):
        for name in group.list_commands(click.Context(group)):
            found = group.get_command(click.Context(group), name)
            yield found
            if isinstance(found, click.Group):
                yield from walk(found)

    seen = list(walk(cli))
    assert len(seen) > len(COMMANDS)
    options = {name for one in seen for parameter in one.params for name in parameter.opts}
    assert not [name for name in options if any(word in name for word in ("token", "password", "secret", "auth"))]
