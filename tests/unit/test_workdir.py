"""The addresses of a running stack, written in one step and found again."""

from pathlib import Path

import pytest

from runtime import workdir
from runtime.workdir import Endpoints
from streams.schema.errors import SettingsError

GIVEN = Endpoints("127.0.0.1:1", "http://127.0.0.1:2", {"sink": "http://127.0.0.1:3"}, "http://127.0.0.1:4")


def test_what_was_written_is_read_and_nothing_else_is_left(tmp_path):
    workdir.write(tmp_path, GIVEN)
    assert workdir.read(tmp_path) == GIVEN
    assert [path.name for path in tmp_path.iterdir()] == ["endpoints.json"]


def test_the_directory_is_as_given_then_the_variable_then_the_default(monkeypatch):
    monkeypatch.delenv(workdir.VARIABLE, raising=False)
    assert workdir.workdir() == Path(".perfstream")
    monkeypatch.setenv(workdir.VARIABLE, "/elsewhere")
    assert workdir.workdir() == Path("/elsewhere")
    assert workdir.workdir(Path("here")) == Path("here")


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"unknown": 1}'])
def test_no_stack_is_one_line_that_says_what_to_do(tmp_path, text):
    if text is not None:
        (tmp_path / "endpoints.json").write_text(text)
    with pytest.raises(SettingsError, match="start one with 'make up'"):
        workdir.read(tmp_path)
