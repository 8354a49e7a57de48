"""What containers run with: compose file, image, provisioning, ClickHouse's configuration.

No Docker engine runs in CI. The files are read by the code that Docker Compose, BuildKit and Grafana read them with (Go
modules, ``tests/programs/deploycheck``), and every name in them is held against what it refers to.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
import typing
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from collectors.ingest.settings import IngestSettings
from collectors.privileges import KEPT
from collectors.settings import AgentSettings
from dashboards import alerts, boards, output
from dashboards.boards.parts import DATASOURCE
from deploy.cli import cli
from runtime.settings import ClickHouseSettings, load
from sinks.settings import SinkSettings
from streams.schema.errors import SettingsError
from streams.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROVISIONING = DEPLOY / "grafana" / "provisioning"
SECRETS = {
    "PERFSTREAM_CLICKHOUSE_PASSWORD": "writer-secret",
    "PERFSTREAM_CLICKHOUSE_READER_PASSWORD": "reader-secret",
    "PERFSTREAM_GRAFANA_ADMIN_PASSWORD": "admin-secret",
    "PERFSTREAM_INGEST_TOKEN": "ingest-secret",
}


@pytest.fixture(scope="session")
def deploycheck(tmp_path_factory):
    """Build the program once; ``deploycheck(kind, path, **environment)`` gives what it read, or raises its words."""
    program = tmp_path_factory.mktemp("deploycheck") / "deploycheck"
    source = ROOT / "tests" / "programs" / "deploycheck"
    subprocess.run(["go", "build", "-o", program, "."], cwd=source, check=True, timeout=280)

    def call(kind, path, **environment):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PERFSTREAM_", "COMPOSE_"))}
        done = subprocess.run(
            [program, kind, path], capture_output=True, text=True, env=clean | environment, check=False
        )
        if done.returncode:
            raise ValueError(done.stderr.strip())
        return json.loads(done.stdout)

    return call


@pytest.fixture(scope="module")
def compose(deploycheck):
    return deploycheck("compose", DEPLOY / "compose.yaml", **SECRETS)


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


OURS = {
    "topics": WorkerSettings, "migrate": SinkSettings, "worker": WorkerSettings, "sink": SinkSettings,
    "agent": AgentSettings, "ingest": IngestSettings,
}  # fmt: skip


def test_all_parts_are_there_and_the_broken_file_is_refused(deploycheck, services, tmp_path):
    assert set(services) == {"kafka", "clickhouse", "grafana", *OURS}
    assert services["kafka"]["image"] == "apache/kafka:4.1.0"
    text = (DEPLOY / "compose.yaml").read_text()
    for good, bad, complaint in (
        ("service_healthy", "service_happy", "condition value must be one of"),
        ("kafka: {condition", "kafak: {condition", "depends on undefined service"),
        ("cap_drop", "cap_dropp", "cap_dropp"),
        ("- worker:/var", "- wroker:/var", "refers to undefined volume"),
    ):
        broken = tmp_path / "compose.yaml"
        broken.write_text(text.replace(good, bad))
        with pytest.raises(ValueError, match=complaint):
            deploycheck("compose", broken, **SECRETS)


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_stands_in_the_file_and_each_must_be_set(deploycheck, name):
    with pytest.raises(ValueError, match=f"{name}.*see deploy/env.example"):
        deploycheck("compose", DEPLOY / "compose.yaml", **{k: v for k, v in SECRETS.items() if k != name})
    assert re.search(rf"^{name}=$", (DEPLOY / "env.example").read_text(), re.MULTILINE)


def test_every_variable_of_the_file_is_in_the_example():
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    offered = set(re.findall(r"^#?(PERFSTREAM_\w+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE))
    assert used == offered


def test_ports_are_published_on_loopback_only(services):
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert set(published) == {"kafka", "clickhouse", "grafana", "ingest"}
    assert all(port["host_ip"] == "127.0.0.1" for ports in published.values() for port in ports)


def test_only_the_agent_has_privileges_and_only_those_it_needs(services):
    for name, service in services.items():
        assert not service.get("privileged")
        assert "no-new-privileges:true" in service.get("security_opt", []) or name == "clickhouse"
        if name in OURS:
            assert service["cap_drop"] == ["ALL"]
            assert service["read_only"] is True
        if name != "agent":
            assert not {"cap_add", "pid", "uts", "cgroup", "ipc", "network_mode", "devices", "user"} & service.keys()
    agent = services["agent"]
    assert {f"CAP_{name}" for name in agent["cap_add"]} == set(KEPT)
    assert (agent["user"], agent["pid"], agent["uts"], agent["cgroup"]) == ("0:0", "host", "host", "host")
    mounts = {v["target"]: v.get("read_only", False) for v in agent["volumes"] if v["type"] == "bind"}
    assert mounts == dict.fromkeys(("/sys/kernel/tracing", "/sys/kernel/btf", "/lib/modules", "/usr/src"), True)


def test_the_systemd_unit_is_understood_and_gives_the_same_privileges(tmp_path):
    text = (DEPLOY / "systemd" / "perfstream-agent.service").read_text()
    unit = re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)
    for name in ("CapabilityBoundingSet", "AmbientCapabilities"):
        (given,) = (value for key, value in unit if key == name)
        assert set(given.split()) == set(KEPT)
    assert ("NoNewPrivileges", "yes") in unit
    asked = {value.split("=")[0] for key, value in unit if key == "Environment"}
    assert {name for name in asked if name.startswith("PERFSTREAM_")} <= {"PERFSTREAM_CACHE", *variables(AgentSettings)}
    assert re.search(r"^ExecStart=\S+/perfstream agent$", text, re.MULTILINE)
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    for good, bad, complaint in (("", "", ""), ("~ptrace", "~ptrrace", "ptrrace")):
        path = tmp_path / "perfstream-agent.service"
        path.write_text(text.replace(good, bad))
        said = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False
        )
        assert (complaint in said.stderr) if complaint else (said.stderr, said.returncode) == ("", 0)


def test_start_order_and_health(services):
    waits = {name: {on: d["condition"] for on, d in s.get("depends_on", {}).items()} for name, s in services.items()}
    done, healthy = "service_completed_successfully", "service_healthy"
    assert waits == {
        "kafka": {}, "clickhouse": {}, "topics": {"kafka": healthy}, "migrate": {"clickhouse": healthy},
        "worker": {"topics": done}, "sink": {"topics": done, "migrate": done}, "agent": {"topics": done},
        "ingest": {"topics": done}, "grafana": {"migrate": done},
    }  # fmt: skip
    for name, service in services.items():
        once = name in ("topics", "migrate")
        assert ("healthcheck" in service) is not once
        assert service["restart"] == ("on-failure:3" if once else "unless-stopped")


@pytest.mark.parametrize("name", OURS)
def test_commands_and_settings_exist(services, name):
    service = services[name]
    asked = CliRunner().invoke(cli, [*service["command"], "--help"])
    assert asked.exit_code == 0, asked.output
    known = {"PERFSTREAM_CACHE", *variables(OURS[name])}
    assert {key for key in service["environment"] if key.startswith("PERFSTREAM_")} <= known
    if "PERFSTREAM_KAFKA_BOOTSTRAP_SERVERS" in service["environment"]:
        assert (
            service["environment"]["PERFSTREAM_KAFKA_BOOTSTRAP_SERVERS"]
            in (services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"])
        )
    if "healthcheck" in service:
        assert f":{service['environment']['PERFSTREAM_HTTP_PORT']}/healthz" in service["healthcheck"]["test"][3]


def test_the_push_endpoint_takes_what_it_is_given(services):
    given = services["ingest"]["environment"]
    options = load(IngestSettings, environ=given).ingest
    options.check()
    assert options.token.reveal() == SECRETS["PERFSTREAM_INGEST_TOKEN"]
    assert {port["target"] for port in services["ingest"]["ports"]} == {options.port, options.grpc_port}
    with pytest.raises(SettingsError, match="without a token"):
        load(IngestSettings, environ=given | {"PERFSTREAM_INGEST_TOKEN": ""}).ingest.check()


def variables(settings, prefix="PERFSTREAM"):
    """Yield the name of every variable that a process reads."""
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        name = f"{prefix}_{field.name}".upper()
        yield from variables(hints[field.name], name) if dataclasses.is_dataclass(hints[field.name]) else [name]


def test_mounted_files_exist_and_volumes_are_declared(compose, services):
    for name, service in services.items():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind" and not volume["source"].startswith(("/sys", "/lib", "/usr")):
                assert Path(volume["source"]).exists(), (name, volume["source"])
                assert volume["read_only"]
            elif volume["type"] == "volume":
                assert volume["source"] in compose["volumes"]
    assert (Path(services["worker"]["build"]["context"]) / services["worker"]["build"]["dockerfile"]).exists()


def test_kafkas_settings_are_names_that_kafka_knows(services, broker):
    """The image turns KAFKA_A_B into a.b; the real broker of these tests says which names it has."""
    given = {k.removeprefix("KAFKA_").lower().replace("_", "."): v for k, v in services["kafka"]["environment"].items()}
    unknown = set(given) - set(broker_settings(broker))
    assert not unknown
    listeners = dict(entry.split("://") for entry in given["listeners"].split(","))
    assert set(listeners) == {entry.split(":")[0] for entry in given["listener.security.protocol.map"].split(",")}
    (port,) = services["kafka"]["ports"]
    assert listeners["OUTSIDE"] == f":{port['target']}"
    assert given["advertised.listeners"].endswith(f"OUTSIDE://127.0.0.1:{port['published']}")


def broker_settings(broker):
    import asyncio

    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    async def ask():
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
        await admin.start()
        try:
            (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
            return [entry[0] for entry in answer.resources[0][4]]
        finally:
            await admin.close()

    return asyncio.run(ask())


def test_the_image(deploycheck, tmp_path):
    path = DEPLOY / "image" / "Dockerfile"
    assert deploycheck("dockerfile", path) == {"warnings": [], "stages": 2}
    text = path.read_text()
    assert text.rindex("USER 10001:10001") > text.rindex("FROM debian:12-slim")
    assert "python3-bpfcc" in text
    odd = tmp_path / "Dockerfile"
    odd.write_text(text.replace("AS build", "as build"))
    assert deploycheck("dockerfile", odd)["warnings"] != []
    odd.write_text(text.replace("COPY --from", "COPYY --from"))
    with pytest.raises(ValueError, match="unknown instruction"):
        deploycheck("dockerfile", odd)


def test_the_images_packages_are_those_of_the_lock_without_the_tests_own():
    def pins(path):
        text = re.sub(r"\s*#.*", "", path.read_text()).replace("\\\n", " ")
        lines = (line.split() for line in text.splitlines() if line.strip())
        return {line[0]: {word for word in line[1:] if word.startswith("--hash=")} for line in lines}

    image, everything = pins(DEPLOY / "image" / "requirements.lock"), pins(ROOT / "requirements.lock")
    assert image
    assert {pin: hashes for pin, hashes in everything.items() if pin in image} == image
    names = {pin.split("==")[0] for pin in image}
    assert {"aiokafka", "faust-streaming", "clickhouse-connect", "numpy", "pyarrow", "click"} <= names
    assert not {"chdb", "pytest", "playwright", "mypy", "ruff"} & names


def test_what_the_image_installs_holds_every_file_that_the_code_reads(tmp_path):
    """Builds the wheel from what the image's context holds, as the Dockerfile does."""
    allowed = (DEPLOY / "image" / "Dockerfile.dockerignore").read_text().split("\n")
    context = [line[1:] for line in allowed if line.startswith("!")]
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *context],
                            cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")  # fmt: skip
    source = tmp_path / "source"
    for name in filter(None, listed):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation",
         "--no-index", "-w", tmp_path, source], check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("perfstream-*.whl")
    there = set(zipfile.ZipFile(wheel).namelist())
    folders = ("collectors", "dashboards", "runtime", "sinks", "streams")
    wanted = {name for name in listed if name.split("/")[0] in folders and (ROOT / name).exists()}
    # What the viewer's bundle is built from is not read by anything that runs.
    assert {name for name in wanted - there if not name.startswith("dashboards/web/viewer/")} == set()


@pytest.mark.parametrize("board", boards.ALL, ids=lambda board: board.uid)
def test_dashboards_are_what_grafanas_own_types_accept(deploycheck, board, tmp_path):
    path = output.DIRECTORY / f"{board.uid}.json"
    assert deploycheck("dashboard", path) == {"panels": len(board.panels)}
    document = json.loads(path.read_text())
    document["panels"][0]["colour"] = "red"
    (tmp_path / "odd.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="unexpected field 'colour'"):
        deploycheck("dashboard", tmp_path / "odd.json")


def test_alert_rules_are_what_grafanas_own_types_accept(deploycheck, tmp_path):
    document = yaml.safe_load(output.ALERTS.read_text())
    path = tmp_path / "alerts.json"
    path.write_text(json.dumps(document))
    assert deploycheck("alerts", path) == {"rules": len(alerts.RULES)}
    document["groups"][0]["rules"][1]["noDataState"] = 3
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"The pipeline loses events: noDataState"):
        deploycheck("alerts", path)


def test_provisioning_agrees_with_the_dashboards_and_the_compose_file(services):
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "perfstream.yaml").read_text())["datasources"]
    assert (source["uid"], source["type"]) == (alerts.DATASOURCE_UID, DATASOURCE)
    given = services["grafana"]["environment"]
    assert set(re.findall(r"\$\{(\w+)\}", json.dumps(source))) <= set(given)
    assert given["GF_PLUGINS_PREINSTALL_SYNC"] == DATASOURCE
    users = ET.parse(DEPLOY / "clickhouse" / "users.xml").getroot().find("users")
    assert {user.tag for user in users} == {
        given["PERFSTREAM_CLICKHOUSE_READER"], services["sink"]["environment"]["PERFSTREAM_CLICKHOUSE_USERNAME"],
    }  # fmt: skip
    for user in users:
        assert user.find("password").get("from_env") in services["clickhouse"]["environment"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "perfstream.yaml").read_text())["providers"]
    mounts = {v["target"]: Path(v["source"]) for v in services["grafana"]["volumes"] if v["type"] == "bind"}
    assert mounts[provider["options"]["path"]] == output.DIRECTORY
    assert mounts["/etc/grafana/provisioning"] == PROVISIONING
    home = Path(given["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (output.DIRECTORY / home.name).exists()
    assert output.ALERTS.is_relative_to(PROVISIONING / "alerting")


def test_clickhouses_users_and_limits(store):
    root = ET.parse(DEPLOY / "clickhouse" / "users.xml").getroot()
    reader = root.find("users/grafana")
    profile = root.find(f"profiles/{reader.findtext('profile')}")
    assert profile.findtext("readonly") == "2"
    assert root.find(f"quotas/{reader.findtext('quota')}") is not None
    grants = {query.text for query in reader.iter("query")}
    assert all(grant.startswith("GRANT SELECT ON ") for grant in grants)
    known = set(store.post("SELECT name FROM system.settings").decode().split())
    limits = {setting.tag for setting in profile if setting.tag != "constraints"}
    assert {"max_execution_time", "max_memory_usage"} <= limits <= known
    assert {setting.tag for setting in profile.find("constraints")} == limits - {"readonly"}
    assert ClickHouseSettings().username not in {user.tag for user in root.find("users")}


def test_clickhouses_own_logs_are_off_or_expire():
    logs = [log for log in ET.parse(DEPLOY / "clickhouse" / "logs.xml").getroot() if log.tag.endswith("_log")]
    assert {"query_log", "part_log", "trace_log", "metric_log", "asynchronous_metric_log", "text_log"} <= {
        log.tag for log in logs
    }
    for log in logs:
        assert log.get("remove") == "1" or re.fullmatch(r"event_date \+ INTERVAL \d+ DAY DELETE", log.findtext("ttl"))
