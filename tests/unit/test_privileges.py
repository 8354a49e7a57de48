"""Giving up rights: what a process has afterwards, and that what has too much is found. Needs no rights itself."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from collectors import privileges

STATUS = """
from pathlib import Path
from collectors import privileges
privileges.drop([{kept}])
print(Path("/proc/self/status").read_text())
"""


def after_drop(kept):
    text = subprocess.run(
        [sys.executable, "-c", STATUS.format(kept=kept)], capture_output=True, text=True, check=True
    ).stdout
    return dict(re.findall(r"^(\w+):\s*(\S+)", text, re.MULTILINE))


def test_what_is_left_is_what_was_asked_for_and_there():
    mine = dict(re.findall(r"^(\w+):\s*(\S+)", Path("/proc/self/status").read_text(), re.MULTILINE))
    for kept in (5, 39):  # CAP_KILL, CAP_BPF: one in each half
        left = after_drop(kept)
        assert left["NoNewPrivs"] == "1"
        for name in ("CapPrm", "CapEff", "CapInh"):
            assert int(left[name], 16) == int(mine[name], 16) & 1 << kept
        if os.geteuid() == 0:
            assert int(left["CapBnd"], 16) == int(mine["CapBnd"], 16) & 1 << kept
    assert int(after_drop("")["CapEff"], 16) == 0


def status(proc, thread, effective, bounding="0", no_new="1"):
    task = proc / "task" / str(thread)
    task.mkdir(parents=True)
    task.joinpath("status").write_text(
        f"Name:\tx\nCapInh:\t0000000000000000\nCapEff:\t{effective}\nCapBnd:\t{bounding}\nNoNewPrivs:\t{no_new}\n"
    )


def test_a_thread_with_more_than_the_others_is_found(tmp_path):
    kept = sum(1 << number for number in privileges.KEPT.values())
    status(tmp_path, 7, f"{kept:016x}", f"{kept:016x}")
    assert privileges.beyond(tmp_path) == []
    status(tmp_path, 11, f"{kept | 1 << 21:016x}")
    assert privileges.beyond(tmp_path) == ["thread 11 has CapEff 200000 too much"]


def test_a_collector_that_needs_more_keeps_that_alone(tmp_path):
    kept = privileges.kept(("exec", "dns"))
    assert kept == {**privileges.KEPT, "CAP_NET_RAW": 13}
    assert privileges.kept(("exec",)) == privileges.KEPT
    status(tmp_path, 7, f"{sum(1 << number for number in kept.values()):016x}")
    assert privileges.beyond(tmp_path) == ["thread 7 has CapEff 2000 too much"]
    assert privileges.beyond(tmp_path, kept.values()) == []


def test_threads_that_end_meanwhile_are_no_error():
    ended = threading.Event()
    threads = [threading.Thread(target=ended.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    ended.set()
    privileges.beyond()
    for thread in threads:
        thread.join()


def test_a_directory_of_another_user_is_taken_over(tmp_path):
    directory = tmp_path / "a" / "spool"
    privileges.take_over(directory)
    assert directory.is_dir()
    (directory / "lock").touch()
    if os.geteuid() == 0:  # only then can there be files of others
        for path in (directory, directory / "lock"):
            os.chown(path, 1, 1)
        (directory / "link").symlink_to("/etc/hostname")
        privileges.take_over(directory)
        assert {path.lstat().st_uid for path in (directory, *directory.iterdir())} == {0}
    privileges.take_over(Path("/proc/self/nowhere"))  # whoever uses it will say why not
