"""Fixtures of the tests that load real programs. Everything here needs root and fails, never skips, without it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from collectors.bpf import kernel
from collectors.workload import Workloads
from tests.kernel import known as programs


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(scope="session", autouse=True)
def root():
    assert os.geteuid() == 0, "tests of the kernel's side need root: sudo make kernel"


@pytest.fixture(scope="session")
def known(tmp_path_factory):
    """The compiled ``known.c``. Its name is what bpftrace filters by."""
    return programs.build(programs.PROGRAMS / "known.c", tmp_path_factory.mktemp("known") / "perfknown")


@pytest.fixture(scope="session")
def gadgets(tmp_path_factory):
    """The compiled ``gadgets.c``."""
    return programs.build(programs.PROGRAMS / "gadgets.c", tmp_path_factory.mktemp("gadgets") / "perfgadgets")


@pytest.fixture
def service():
    """A name that no other process carries."""
    return f"svc-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def workloads():
    return Workloads()


@pytest.fixture
def run_time():
    """Run times are counted while the test runs."""
    fd = kernel.enable_stats()
    yield
    os.close(fd)
