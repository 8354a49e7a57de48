"""Programs that carry Pyroscope's own clients, installed once: pinned by package-lock.json and by Maven coordinates."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

PROGRAMS = Path(__file__).parents[1] / "programs"
JAVA_AGENT = "io.pyroscope:agent:2.1.2"


def run(*command, **options):
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def java_agent():
    """Return the agent's jar."""
    base = _cache() / "java"
    jar = base / f"agent-{JAVA_AGENT.rpartition(':')[2]}.jar"
    if not jar.exists():
        run("mvn", "-q", "-B", "dependency:copy", f"-Dartifact={JAVA_AGENT}", f"-DoutputDirectory={base}")
    return jar


def java_classes(directory):
    """Compile the programs of ``javasplit`` into a directory and return it."""
    run("javac", "-cp", java_agent(), "-d", directory, *(PROGRAMS / "javasplit").glob("*.java"))
    return directory


def node_command(directory):
    """Return how ``pyroscope_node`` is started; it is copied into ``directory``.

    Node itself is among its packages: Debian 12's is older than what the client runs on.
    """
    source = PROGRAMS / "pyroscope_node"
    lock = source / "package-lock.json"
    home = _cache() / f"node-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not home.exists():
        making = directory / "install"
        making.mkdir()
        for name in (".npmrc", "package.json", lock.name):
            shutil.copy(source / name, making)
        run("npm", "ci", "--ignore-scripts", cwd=making)
        home.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(making, home)
    (directory / "node_modules").symlink_to(home / "node_modules")
    shutil.copy(source / "main.js", directory)
    node = next((home / "node_modules").glob("node-linux-*")) / "bin" / "node"
    return [node, directory / "main.js"]


def _cache():
    return Path(os.environ.get("PERFSTREAM_CACHE") or Path(__file__).parents[2] / ".cache").resolve()
