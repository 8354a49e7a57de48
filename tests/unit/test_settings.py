from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from runtime.settings import ClickHouseSettings, KafkaSettings, Secret, load
from streams.schema.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Example:
    interval_s: int = 10
    names: tuple[str, ...] = ()
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    clickhouse: ClickHouseSettings = field(default_factory=ClickHouseSettings)


def test_file_then_environment(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text('interval_s = 5\nnames = ["a"]\n[kafka]\nbootstrap_servers = "k:1"\n[someone_else]\nx = 1\n')
    settings = load(
        Example,
        path,
        {"PERFSTREAM_KAFKA_BOOTSTRAP_SERVERS": "k:2", "PERFSTREAM_KAFKA_OPTIONS": "client_id=x,retry_backoff_ms=7"},
    )
    assert settings.interval_s == 5
    assert settings.names == ("a",)
    assert settings.kafka.client_options() == {
        "bootstrap_servers": "k:2",
        "security_protocol": "PLAINTEXT",
        "client_id": "x",
        "retry_backoff_ms": 7,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("interval_s = 'soon'", "interval_s"),
        ("[kafka]\nbootstrap = 'x'", "unknown setting 'kafka.bootstrap'"),
        ("=", "p.toml"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load(Example, path, {})


def test_a_secret_shows_itself_only_when_asked():
    settings = load(Example, None, {"PERFSTREAM_CLICKHOUSE_PASSWORD": "hunter2"})
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in f"{settings.clickhouse.password} {settings.clickhouse.password!r}"
    assert settings.clickhouse.client_options()["password"] == "hunter2"
    assert isinstance(settings.clickhouse.password, Secret)
    with pytest.raises(SettingsError) as error:
        load(Example, None, {"PERFSTREAM_INTERVAL_S": "x"})
    assert "hunter2" not in str(error.value)


@dataclass(frozen=True, slots=True)
class Item:
    address: str
    seconds: int = 10
    profiles: Mapping[str, str] = field(default_factory=dict)
    password: Secret = Secret("")

    def __post_init__(self):
        if self.seconds < 1:
            raise SettingsError("seconds must be at least 1")


@dataclass(frozen=True, slots=True)
class Group:
    scrape: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Nested:
    agent: Group = field(default_factory=Group)


def test_an_array_of_tables_is_a_tuple_of_dataclasses(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(
        "[agent]\n[[agent.scrape]]\naddress = 'http://a'\nprofiles = { heap = 7 }\n"
        "[[agent.scrape]]\naddress = 'http://b'\nseconds = 3\npassword = 'hunter2'\n"
    )
    # A variable that looks like a field of a table is nobody's.
    first, second = load(
        Nested, path, {"PERFSTREAM_AGENT_SCRAPE_0_SECONDS": "5", "PERFSTREAM_SECONDS": "6"}
    ).agent.scrape
    assert first == Item("http://a", profiles={"heap": "7"})
    assert (second.address, second.seconds, second.password.reveal()) == ("http://b", 3, "hunter2")
    assert "hunter2" not in repr(second)
    assert load(Nested, None, {}).agent.scrape == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[agent.scrape]]\naddress = 'a'\n[[agent.scrape]]\nseconds = 3", r"'agent.scrape\[1\].address' is missing"),
        (
            "[[agent.scrape]]\naddress = 'a'\nadress = 'b'",
            r"unknown setting 'agent.scrape\[0\].adress'; known here: addr",
        ),
        ("[[agent.scrape]]\naddress = 'a'\n[agent.scrape.x]\ny = 1", r"unknown setting 'agent.scrape\[0\].x'"),
        (
            "[[agent.scrape]]\naddress = 'a'\nseconds = 'soon'",
            r"setting agent.scrape\[0\].seconds: 'soon' is not a int",
        ),
        ("[[agent.scrape]]\naddress = 'a'\nseconds = 0", r"setting agent.scrape\[0\]: seconds must be at least 1"),
        ("[agent]\nscrape = 'http://a'", r"write \[\[agent.scrape\]\]"),
        ("[agent.scrape]\naddress = 'a'", r"write \[\[agent.scrape\]\]"),
    ],
)
def test_a_wrong_table_of_an_array_names_its_place(tmp_path, text, message):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load(Nested, path, {})


def test_an_array_of_tables_cannot_stand_in_a_variable():
    with pytest.raises(SettingsError, match=r"list of tables: write \[\["):
        load(Nested, None, {"PERFSTREAM_AGENT_SCRAPE": "http://a"})
