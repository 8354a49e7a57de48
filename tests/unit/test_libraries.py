"""Which files of a library are probed, from a /proc of the test's own."""

import pytest

from collectors import libraries
from collectors.libraries import Libraries, mapped
from streams.schema.errors import KernelError

LINE = "7f00-7f01 {perms} 00000000 fe:00 {inode} {path}\n"


@pytest.fixture
def process(tmp_path):
    def make(pid, *files, perms="r-xp"):
        home = tmp_path / str(pid)
        text = ""
        for path in files:
            file = home / "root" / path.removesuffix(" (deleted)").lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            text += LINE.format(perms=perms, inode=file.stat().st_ino, path=path)
        home.joinpath("maps").write_text(text + "7f02-7f03 rw-p 00000000 00:00 0\n")
        return home

    return make


def test_code_of_the_library_counts_and_is_reached_through_its_own_root(process, tmp_path):
    process(7, "/usr/lib/libssl.so.3", "/usr/lib/libcrypto.so.3", "/opt/libssl.so.3 (deleted)", "/usr/lib/notlibssl.so")
    process(11, "/x/libssl.so.1.1", perms="r--p")
    (tmp_path / "13").mkdir()  # has ended
    assert list(mapped(("libssl.so",), tmp_path).values()) == [f"{tmp_path}/7/root/usr/lib/libssl.so.3"]


def test_each_file_once_and_let_go_when_nobody_has_it_any_more(process, tmp_path, monkeypatch):
    monkeypatch.setattr(libraries, "installed", lambda _names: iter(()))
    monkeypatch.setattr(libraries, "AGAIN_S", 0)
    monkeypatch.setattr(libraries, "SHARE", 0)
    attached, detached = [], []

    def attach(path):
        attached.append(path.removeprefix(str(tmp_path)))
        if "strange" in path:
            raise KernelError("none of the functions")
        return [100 + len(attached)]

    seen = Libraries(("libssl.so",), attach, detached.append, tmp_path)
    home = process(7, "/usr/lib/libssl.so.3")
    process(11, "/strange/libssl.so.3")
    seen.look()
    seen.look()
    assert attached == ["/7/root/usr/lib/libssl.so.3", "/11/root/strange/libssl.so.3"]
    home.joinpath("maps").write_text("")
    seen.look()
    assert detached == [[101]]


def test_it_looks_seldom(process, tmp_path, monkeypatch):
    monkeypatch.setattr(libraries, "installed", lambda _names: iter(()))
    attached = []
    seen = Libraries(("libssl.so",), lambda path: attached.append(path) or [], attached.append, tmp_path)
    seen.look()
    process(7, "/usr/lib/libssl.so.3")
    seen.look()
    assert attached == []
