import signal
import socket
import sys
import time
from dataclasses import astuple, fields

import pytest

from deploy.stack import plan, process
from deploy.stack.process import Stage
from deploy.stack.settings import Ports
from streams.schema.errors import SettingsError


def stage(tmp_path, code, name="s"):
    return Stage(name, (sys.executable, "-c", code), {}, tmp_path / f"{name}.log")


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("did not happen in time")


def test_a_dead_stage_waits_longer_each_time_and_is_started_again(tmp_path):
    one = stage(tmp_path, "print('last words', flush=True); raise SystemExit(3)")
    now = 1000.0
    waits = []
    one.start()
    for _ in range(4):
        wait_until(lambda: not one.running)
        assert one.tend(now, steady_s=60)
        waits.append(one.next_start - now)
        assert one.last_exit == 3
        assert not one.tend(now, steady_s=60)  # not before its time
        assert one.pid is None
        now = one.next_start
        assert not one.tend(now, steady_s=60)
    assert waits == [0.5, 1.0, 2.0, 4.0]
    assert one.restarts == 4
    assert "last words" in one.last_words()
    process.stop([one], 1)


def test_a_stage_that_ignores_sigterm_is_ended_by_force_within_the_bound(tmp_path):
    code = (
        "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    stubborn, polite = stage(tmp_path, code, "a"), stage(tmp_path, "import time; time.sleep(60)", "b")
    stubborn.start()
    polite.start()
    wait_until(lambda: "ready" in stubborn.last_words())
    began = time.monotonic()
    process.stop([stubborn, polite], timeout_s=1.0)
    assert time.monotonic() - began < 3
    assert stubborn.process.returncode == -signal.SIGKILL
    assert polite.process.returncode == -signal.SIGTERM


def test_a_port_in_use_is_one_line_that_names_the_way_out(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"port {port} \(kafka\) is in use.*PERFSTREAM_PORTS_KAFKA") as error:
            plan.choose_ports(Ports(kafka=port), tmp_path)
        assert "\n" not in str(error.value)


def test_free_ports_stay_the_same_for_a_directory(tmp_path):
    zero = Ports.free()
    first = plan.choose_ports(zero, tmp_path)
    assert plan.choose_ports(zero, tmp_path) == first
    assert len(set(astuple(first))) == len(fields(Ports))
