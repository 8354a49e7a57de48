"""``perfstream demo``: exits 0 only when the whole pipeline measured the known workload rightly."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.services, pytest.mark.alone]


@pytest.mark.timeout(400)
def test_the_demo_agrees_with_its_known_workload(tmp_path):
    flamegraph = tmp_path / "flame.html"
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "demo", "--seconds", "30", "--workdir", str(tmp_path / "stack"),
         "--flamegraph", str(flamegraph), "--format", "json"],
        capture_output=True, text=True, timeout=380, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    findings = json.loads(done.stdout)
    assert len(findings) > 15
    assert all(finding["agrees"] for finding in findings)
    assert "burn_five" in flamegraph.read_text()
