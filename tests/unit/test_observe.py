"""Health and the two paths that every process serves."""

import json
import subprocess
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from deploy.stack import status
from deploy.stack.process import Stage
from runtime.observe import Health, serve
from runtime.settings import HttpSettings
from streams.schema.errors import SettingsError


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_and_health_over_http():
    registry, health = CollectorRegistry(), Health()
    Counter("perfstream_test_things", "Things.", registry=registry).inc(7)
    port = serve(HttpSettings(), health, registry)
    assert get(port, "/healthz") == (200, '{"ok": true, "checks": {}}\n')
    health.well("kafka")
    health.ill("store", "does not answer")
    status, body = get(port, "/healthz")
    assert status == 503
    assert json.loads(body) == {"ok": False, "checks": {"kafka": "", "store": "does not answer"}}
    health.well("store")
    assert get(port, "/healthz")[0] == 200
    assert "perfstream_test_things_total 7.0" in get(port, "/metrics")[1]
    assert get(port, "/")[0] == 404
    with pytest.raises(SettingsError, match="choose another port"):
        serve(HttpSettings(port=port), health, registry)


def test_a_check_that_is_ill_without_a_reason_is_still_ill():
    health = Health()
    health.ill("store", "")
    assert health.state() == (False, {"store": "unwell"})


def test_a_check_can_be_asked_at_each_look():
    health, reasons = Health(), [""]
    health.ask("kafka", lambda: reasons[0])
    assert health.state() == (True, {"kafka": ""})
    reasons[0] = "away"
    assert health.state() == (False, {"kafka": "away"})


def test_the_status_of_up_asks_for_what_it_shows_and_no_more(tmp_path):
    registry, health = CollectorRegistry(), Health()
    health.ill("budget", "uses too much")
    rows = Counter("perfstream_agent_rows", "Rows.", ["collector"], registry=registry)
    rows.labels("exec").inc(7)
    rows.labels("exit").inc(4)
    Counter("perfstream_agent_lost", "Lost.", registry=registry).inc(2)
    Counter("perfstream_agent_other", "Other.", registry=registry).inc(1)
    port = serve(HttpSettings(), health, registry)
    with subprocess.Popen(["sleep", "60"]) as process:
        stage = Stage("agent", (), {}, tmp_path / "log", f"http://127.0.0.1:{port}", process)
        found = status.look({"agent": stage})["agent"]
        everything = status.read(stage).counters
        process.kill()
    assert found.counters == {"perfstream_agent_rows_total": 11, "perfstream_agent_lost_total": 2}
    assert everything == {**found.counters, "perfstream_agent_other_total": 1}
    assert (found.problems, found.rss_bytes > 0) == ({"budget": "uses too much"}, True)
