"""Health and the two paths that every process serves."""

import json
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

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
