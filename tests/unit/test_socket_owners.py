"""Whose a socket is, from a /proc of the test's own."""

import pytest

from collectors.socket_owners import SHARE, SocketOwners


@pytest.fixture
def proc(tmp_path):
    def hold(pid, *targets):
        home = tmp_path / str(pid) / "fd"
        home.mkdir(parents=True, exist_ok=True)
        for target in targets:
            (home / str(len(list(home.iterdir())))).symlink_to(target)

    (tmp_path / "meminfo").touch()
    (tmp_path / "31").mkdir()  # has ended: no descriptors
    hold(29, "/dev/null", "socket:[101]", "pipe:[7]", "socket:[103]")
    hold(7, "socket:[103]")
    return tmp_path, hold


def test_sockets_are_found_and_a_shared_one_is_the_parents(proc):
    assert SocketOwners(proc[0]).find([101, 103, 107, 0]) == {101: 29, 103: 7}


def test_it_looks_again_when_one_is_unknown_but_seldom(proc):
    times = [10.0]

    def now():
        times[0] += 0.01
        return times[0]

    home, hold = proc
    owners = SocketOwners(home, now)
    assert owners.find([101]) == {101: 29}
    hold(41, "socket:[113]")
    assert owners.find([113, 101]) == {101: 29}
    times[0] += SHARE * 0.02
    assert owners.find([113]) == {113: 41}
    times[0] += SHARE * 0.02
    looked_at = times[0]
    assert owners.find([113]) == {113: 41}  # known: nothing to look for
    assert times[0] - looked_at < 0.02
