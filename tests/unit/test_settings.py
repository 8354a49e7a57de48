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
