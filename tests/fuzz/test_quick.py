"""A short pass over every decoder; ``make fuzz`` goes on for hours."""

import subprocess
import sys

import pytest

from tests.fuzz import run, seeds, targets


def fuzz(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", *arguments],
        cwd=run.ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_no_decoder_falls_over(tmp_path):
    answer = fuzz("--seconds", "1", "--seed", "7", "--found", str(tmp_path))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    told = dict(line.split(": ", 1) for line in answer.stdout.splitlines())
    assert told.keys() == targets.TARGETS.keys()


@pytest.mark.parametrize(
    ("seed", "how"),
    [(b"\x7f!", "signal SIGSEGV"), (b"\x7f.", "RuntimeError: found"), (b"\x7f?", "tests.fuzz.run.HangError")],
)
def test_the_driver_finds_and_keeps_what_ends_hangs_or_raises(tmp_path, capsys, seed, how):
    program = (
        "import sys, pathlib; from tests.fuzz import run; run.INPUT_S = 1\n"
        f"run.CORPUS = pathlib.Path({str(tmp_path)!r}); sys.exit(run.main())"
    )
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "seed").write_bytes(seed)
    shared = tmp_path / "shared"
    shared.write_bytes(bytes(8 + run.LONGEST))
    command = [sys.executable, "-c", program, "broken", "--child", "--shared", str(shared), "--seconds", "1"]
    answer = subprocess.run(command, cwd=run.ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode != 0
    options = run.argparse.Namespace(found=tmp_path / "found")
    run.report("broken", answer.returncode, answer.stderr, shared, options)
    assert f"FOUND broken: {how}" in capsys.readouterr().out
    (kept,) = (tmp_path / "found" / "broken").iterdir()
    assert kept.read_bytes() == seed


def test_every_target_has_its_corpus():
    assert {path.name for path in run.CORPUS.iterdir()} == targets.TARGETS.keys()
    for target, make in seeds.ALL.items():
        assert {path.name for path in (run.CORPUS / target).iterdir()} >= make().keys()
    assert sum(path.stat().st_size for path in run.CORPUS.rglob("*") if path.is_file()) < 1 << 20
