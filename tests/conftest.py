"""Fixtures shared by all tests: the real broker, one for the whole run; a fresh prefix for each test."""

from __future__ import annotations

import uuid

import pytest
from xdist.scheduler import LoadScopeScheduling

from deploy.broker import Broker, free_port

KERNEL = "tests/kernel/"


class Scopes(LoadScopeScheduling):
    """A module stays on one worker; so do all that load programs: bpftrace tells their workloads by their names."""

    def _split_scope(self, nodeid):
        return KERNEL if nodeid.startswith(KERNEL) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return Scopes(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    """A real Kafka for the whole session; a missing Java or Maven fails here, it does not skip."""
    instance = Broker(tmp_path_factory.mktemp("kafka"), free_port(), free_port())
    instance.start()
    yield instance
    instance.stop()


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; a missing one fails here."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        yield instance
        instance.close()


@pytest.fixture
def unique():
    """A fresh name, for the topics, groups and databases of one test."""
    return f"t{uuid.uuid4().hex[:10]}"
