"""Which processes the local stack consists of, with which settings."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from deploy.broker import Broker, free_port
from deploy.stack.process import Stage
from deploy.stack.settings import Ports
from runtime.workdir import Endpoints
from streams.schema.errors import SettingsError

MEASURED = ("agent", "ingest", "worker", "sink", "store")


def choose_ports(wanted: Ports, workdir: Path) -> Ports:
    """Return the ports to use: as set; a 0 becomes the port this directory used before, or a free one.

    Raises:
        SettingsError: a port that was asked for is in use.
    """
    kept_file = workdir / "ports.json"
    try:
        kept = json.loads(kept_file.read_text())
    except (OSError, ValueError):
        kept = {}
    chosen: dict[str, int] = {}
    for spec in fields(Ports):
        port = getattr(wanted, spec.name)
        if port == 0:
            before = kept.get(spec.name, 0)
            port = before if before and before not in chosen.values() and _is_free(before) else free_port()
        elif not _is_free(port):
            raise SettingsError(
                f"port {port} ({spec.name}) is in use; end what listens there, or choose another: "
                f"PERFSTREAM_PORTS_{spec.name.upper()}=PORT, or 'perfstream up --free-ports'"
            )
        chosen[spec.name] = port
    kept_file.write_text(json.dumps(chosen) + "\n")
    return Ports(**chosen)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def endpoints(ports: Ports) -> Endpoints:
    """Return the addresses of a stack that runs on these ports."""
    return Endpoints(
        kafka=f"127.0.0.1:{ports.kafka}",
        clickhouse=f"http://127.0.0.1:{ports.clickhouse}/perfstream",
        metrics={name: f"http://127.0.0.1:{getattr(ports, name)}" for name in MEASURED},
        push=f"http://127.0.0.1:{ports.push}",
    )


def named(stage: str) -> dict[str, str]:
    """Return the variables by which the agent knows a stage for what it is, and not for one more Python."""
    return {"OTEL_SERVICE_NAME": f"perfstream-{stage}"}


def broker(ports: Ports, workdir: Path) -> Broker:
    """Return the stack's Kafka."""
    return Broker(workdir / "kafka", ports.kafka, ports.kafka_controller)


def stages(ports: Ports, workdir: Path, config: Path | None, extra: Mapping[str, str]) -> dict[str, Stage]:
    """Return every stage but Kafka's, by name, in the order in which data flow."""
    addresses = endpoints(ports)
    common = {
        "PERFSTREAM_KAFKA_BOOTSTRAP_SERVERS": addresses.kafka,
        "PERFSTREAM_CLICKHOUSE_DSN": addresses.clickhouse,
        "PERFSTREAM_WORKDIR": str(workdir),
        "PYTHONUNBUFFERED": "1",
        # Several allocator arenas a thread cost more memory than they save time here.
        "MALLOC_ARENA_MAX": "2",
    }
    if config is not None:
        common["PERFSTREAM_CONFIG"] = str(config.resolve())
    logs = workdir / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    def stage(name: str, *arguments: str, **environment: str) -> Stage:
        port = getattr(ports, name)
        return Stage(
            name=name,
            command=(sys.executable, "-m", "deploy.cli", name, *arguments),
            environment={**common, **named(name), "PERFSTREAM_HTTP_PORT": str(port), **environment, **extra},
            log=logs / f"{name}.log",
            metrics=addresses.metrics[name],
        )

    return {
        "store": stage("store", "--path", str(workdir / "store"), "--port", str(ports.clickhouse)),
        "sink": stage("sink"),
        "worker": stage("worker", "--datadir", str(workdir / "worker")),
        "ingest": stage("ingest", "--port", str(ports.push), PERFSTREAM_INGEST_GRPC_PORT=str(ports.otlp)),
        "agent": stage("agent", PERFSTREAM_SPOOL_DIRECTORY=str(workdir / "spool")),
    }
