"""A real single-node Kafka (KRaft) on loopback, from the jars that Maven Central holds: no container engine needed."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from streams.schema.errors import BrokerUnavailableError, SettingsError

VERSION = "4.1.0"
POM = Path(__file__).parent / "kafka" / "pom.xml"


def jars_directory() -> Path:
    """Return where the jars are kept: ``PERFSTREAM_CACHE`` or ``.cache`` beside the source tree."""
    base = os.environ.get("PERFSTREAM_CACHE") or Path(__file__).parent.parent / ".cache"
    return Path(base) / f"kafka-{VERSION}"


def fetch_jars(directory: Path | None = None) -> Path:
    """Fetch Kafka's jars with Maven unless they are there; returns their directory.

    Raises:
        SettingsError: Java or Maven is missing, or Maven failed.
    """
    directory = directory or jars_directory()
    if (directory / "complete").exists():
        return directory
    for program, package in (("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            raise SettingsError(f"'{program}' is missing; install it: apt-get install {package}")
    directory.mkdir(parents=True, exist_ok=True)
    command = [
        "mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies",
        "-DincludeScope=runtime", f"-DoutputDirectory={directory.resolve()}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise SettingsError(f"Maven could not fetch Kafka {VERSION}: {' | '.join(tail)}")
    (directory / "complete").touch()
    return directory


def archive(jars: Path) -> Path:
    """Return where ``deploy.class_archive`` keeps these jars' classes for the Java that is installed now."""
    java = Path(shutil.which("java") or "java").resolve()
    found = java.stat() if java.exists() else None
    which = f"{java} {found.st_size} {found.st_mtime_ns}" if found else ""
    return jars.resolve() / f"classes-{hashlib.sha256(which.encode()).hexdigest()[:12]}.jsa"


class Broker:
    """One broker process. ``start`` returns when it listens; data stay in ``directory`` across restarts."""

    def __init__(self, directory: Path, port: int, controller_port: int, heap: str = "512m") -> None:
        self._directory = directory
        self.port = port
        self._controller_port = controller_port
        self._heap = heap
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Return ``host:port`` for clients."""
        return f"127.0.0.1:{self.port}"

    def command(self, main: str, *arguments: str) -> list[str]:
        """Return the command line of one of Kafka's main classes."""
        jars = fetch_jars()
        classes = archive(jars)
        # The quick compiler: a broker of one machine is up in half the time, for half the CPU.
        return [
            "java", f"-Xmx{self._heap}", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            *([f"-XX:SharedArchiveFile={classes}"] if classes.exists() else []),
            f"-Dlog4j2.configurationFile={self._log_configuration()}",
            "-cp", f"{jars.resolve()}/*", main, *arguments,
        ]  # fmt: skip

    def run_command(self) -> list[str]:
        """Return the command line that runs the broker in the foreground; ``prepare`` comes first."""
        return self.command("kafka.Kafka", str(self._properties()))

    def prepare(self) -> None:
        """Write the configuration and format the storage at the first start."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._properties().write_text(self._configuration())
        if (self._directory / "data" / "meta.properties").exists():
            return
        cluster = self._directory.resolve().name + "-perfstream"
        done = subprocess.run(
            self.command("kafka.tools.StorageTool", "format", "--standalone", "-t", _cluster_id(cluster),
                         "-c", str(self._properties()), *self._format_options()),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise SettingsError(f"Kafka could not format {self._directory}: {(done.stdout + done.stderr)[-300:]}")

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the broker and wait until it accepts connections.

        Raises:
            BrokerUnavailableError: it ended, or did not listen in time; its log says why.
        """
        self.prepare()
        with (self._directory / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.run_command(),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise BrokerUnavailableError(f"Kafka ended at once; see {self._directory / 'broker.log'}")
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise BrokerUnavailableError(f"Kafka did not listen on {self.address} in {timeout_s:.0f} s")

    def stop(self, timeout_s: float = 8.0) -> None:
        """End the broker: politely, then by force."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """End the broker as a crash would (SIGKILL)."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _format_options(self) -> tuple[str, ...]:
        """Return what else the storage is formatted with; for brokers that know users."""
        return ()

    def _properties(self) -> Path:
        return self._directory / "server.properties"

    def _log_configuration(self) -> Path:
        path = self._directory / "log4j2.properties"
        if not path.exists():
            path.write_text(
                "rootLogger.level=WARN\nrootLogger.appenderRef.out.ref=out\nappender.out.type=Console\n"
                "appender.out.name=out\nappender.out.layout.type=PatternLayout\n"
                "appender.out.layout.pattern=%d %p %c: %m%n\n"
            )
        return path

    def _configuration(self) -> str:
        data = (self._directory / "data").resolve()
        # A killed broker is back once the controller has given its former self up: after its session, 9 s by default.
        return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{self._controller_port}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=16777216
"""


def free_port() -> int:
    """Return a TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cluster_id(name: str) -> str:
    import base64

    return base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()[:16]).decode().rstrip("=")
