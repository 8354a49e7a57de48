"""Targets from files in Prometheus's form: what is read, what is refused, and that the last good ones stay."""

import json
import os

import pytest
from prometheus_client import CollectorRegistry

from collectors.scrapers.files import MAX_FILES, REFRESH_S, FileTargets, parse
from collectors.scrapers.settings import DEFAULT_PROFILES, DiscoverySettings, ScrapeTarget
from runtime.settings import Secret
from streams.schema.errors import SettingsError

PLAIN = DiscoverySettings()


def written(path, *groups, text=None):
    """Replace a file in one step, as those do who write such files."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(groups) if text is None else text)
    partial.replace(path)


class Source:
    def __init__(self, *patterns, **settings):
        self.now, self.registry = 0.0, CollectorRegistry()
        self.source = FileTargets(DiscoverySettings(patterns, **settings), self.registry, lambda: self.now)

    def look(self):
        self.now += REFRESH_S
        return [target.host for target in self.source.targets()]

    @property
    def errors(self):
        return self.registry.get_sample_value("perfstream_discovery_file_errors_total")


def test_every_label_that_counts():
    labels = {
        "service": "shop", "job": "ignored", "service_version": "v2", "namespace": "ns", "pod": "p", "container": "c",
        "__scheme__": "https", "__metrics_path__": "/app/pprof", "__param_seconds": "5",
        "profiles": "heap=10, goroutine", "env": "prod", "__meta_x": "y",
    }  # fmt: skip
    settings = DiscoverySettings(ca_file="/ca", authorization=Secret("Bearer x"), timeout_s=3)
    text = json.dumps([{"targets": ["a:1", "[::1]:2"], "labels": labels}, {"targets": ["b:3"]}])
    first, second, third = parse(text.encode(), settings)
    assert first == ScrapeTarget(
        "https://a:1", path="/app/pprof", service="shop", version="v2", namespace="ns", pod="p", container="c",
        profiles={"heap": "10", "goroutine": 60}, seconds=5, timeout_s=3, authorization=Secret("Bearer x"),
        ca_file="/ca",
    )  # fmt: skip
    assert second.url("heap") == "https://[::1]:2/app/pprof/heap"
    assert (third.url("heap"), third.labelled_service) == ("http://b:3/debug/pprof/heap", "b:3")
    assert third.profiles == DEFAULT_PROFILES
    (moved,) = parse(b'[{"targets": ["a:1"], "labels": {"__address__": "b:2", "job": "j"}}]', PLAIN)
    assert (moved.host, moved.service) == ("b:2", "j")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- targets: [a:1]\n", "not JSON .YAML is not read.: .*line 1 column"),
        ("", "not JSON"),
        ("{}", "not a list"),
        ("[1]", r"\[0\] is not"),
        ('[{"targets": ["a:1"], "label": {}}]', r"\[0\] is not"),
        ('[{"targets": []}, {"targets": "a:1"}]', r'\[1\] "targets" is not'),
        ('[{"labels": {}}]', r'\[0\] "targets" is not'),
        ('[{"targets": ["a:1"], "labels": {"service": 1}}]', r'\[0\] "labels" is not'),
        ('[{"targets": ["a:1", "http://b:2"]}]', r"\[0\] 'http://b:2': a target is host:port; its scheme"),
        ('[{"targets": ["a:b"]}]', r"\[0\] 'a:b': address must be"),
        ('[{"targets": [""]}]', "address must be"),
        ('[{"targets": ["a:1"], "labels": {"__scheme__": "ftp"}}]', "address must be"),
        ('[{"targets": ["a:1"], "labels": {"profiles": "cpu"}}]', "there is no 'cpu'"),
        ('[{"targets": ["a:1"], "labels": {"profiles": "heap=often"}}]', "profiles.heap"),
        ('[{"targets": ["a:1"], "labels": {"__param_seconds": "1.5"}}]', "whole seconds"),
        ('[{"targets": ["a:1"], "labels": {"__param_seconds": "90"}}]', "at least 90"),
        ('[{"targets": ["a:1"], "labels": {"pod": "\\ud800"}}]', "the label pod holds what cannot be printed"),
        ('[{"targets": ["a:1"], "labels": {"job": "a\\nb"}}]', "the label job holds"),
        ('[{"targets": ["\\ud800:1"]}]', "address must be"),
        ("[" * 100_000, "not JSON"),
        (json.dumps([{"targets": ["a:1"] * 10_001}]), "more than 10000"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(SettingsError, match=message):
        parse(text.encode(), PLAIN)


def test_files_are_read_again_when_they_change_and_only_then(tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    source = Source(str(tmp_path / "*.json"))
    assert source.look() == []
    written(second, {"targets": ["b:1"]})
    written(first, {"targets": ["a:1", "a:2"]})
    assert source.look() == ["a:1", "a:2", "b:1"]
    written(first, {"targets": ["a:3"]})
    source.now += REFRESH_S / 2
    assert source.source.targets()[0].host == "a:1"
    assert source.look() == ["a:3", "b:1"]
    kept = source.source.targets()
    assert source.look() == ["a:3", "b:1"]
    assert all(one is other for one, other in zip(kept, source.source.targets(), strict=True))
    second.unlink()
    assert source.look() == ["a:3"]
    assert source.errors == 0


def test_a_bad_file_is_said_once_counted_and_its_last_targets_stay(tmp_path, caplog):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    written(good, {"targets": ["a:1"]})
    written(bad, {"targets": ["b:1"]})
    source = Source(str(good), str(bad))
    assert source.look() == ["b:1", "a:1"]
    written(bad, text='[{"targets": ["b:2"]')
    written(good, {"targets": ["a:2"]})
    assert [source.look() for _ in range(3)] == [["b:1", "a:2"]] * 3
    assert source.errors == 1
    written(bad, text="nonsense")
    assert source.look() == ["b:1", "a:2"]
    bad.unlink()
    bad.symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    source.look()
    lines = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.file for record in lines] == [str(bad)] * len(lines)
    assert len(lines) == 3
    bad.unlink()
    written(bad, {"targets": ["b:3"]})
    assert source.look() == ["b:3", "a:2"]


def test_what_is_no_file_or_too_large_or_too_many(tmp_path, caplog):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "large.json").write_bytes(b" " * ((4 << 20) + 1))
    (tmp_path / "folder.json").mkdir()
    source = Source(str(tmp_path / "*.json"))
    assert [source.look(), source.look()] == [[], []]
    assert len({record.file for record in caplog.records}) == len(caplog.records) == 3
    for number in range(MAX_FILES + 10):
        written(tmp_path / f"{number:03}.json", {"targets": [f"a:{number + 1}"]})
    assert source.look() == [f"a:{number + 1}" for number in range(MAX_FILES)]
    assert "more than 100 files" in caplog.text


def test_settings_that_no_target_could_have():
    with pytest.raises(SettingsError, match=r"agent.discovery: seconds must be"):
        DiscoverySettings(seconds=0)
    with pytest.raises(SettingsError, match="max_targets"):
        DiscoverySettings(max_targets=-1)
