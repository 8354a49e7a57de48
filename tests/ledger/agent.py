"""The agent of the ledger: publishes through the real publisher and spool, and may be killed at any instant.

``python -m tests.ledger.agent KAFKA PREFIX DIRECTORY SEED BEGIN_NS NODES PAUSE_S SPOOL_BYTES``

A journal for each node and kind tells what was published: a byte before ``publish``, a byte after it. A byte that was
written stays when the process is killed. So at most one message of each node is uncertain after a kill, and the raw
topics tell about that one. The numbers go on after it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from collectors.publisher import Publisher
from collectors.spool import Spool
from runtime.settings import KafkaSettings
from tests.ledger.rows import KINDS, ROWS, STEP_NS, World

MOST_WAITING = 400


class Journal:
    """Begun and ended publications of one (node, kind): their numbers are positions of bytes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        marks = path.read_bytes()
        self.number = marks.count(b"b")

    def begin(self) -> None:
        self._file.write(b"b")

    def end(self) -> None:
        self._file.write(b"e")
        self.number += 1


def read(path: Path) -> tuple[set[int], set[int]]:
    """Return (numbers that were published, numbers that may have been)."""
    certain, uncertain = set(), set()
    number = -1
    for mark in path.read_bytes():
        if mark == ord("b"):
            number += 1
            uncertain.add(number)
        else:
            uncertain.discard(number)
            certain.add(number)
    return certain, uncertain


def journal_path(directory: Path, node: int, kind: str) -> Path:
    return directory / f"journal-{node}-{kind}"


def main(arguments: list[str]) -> int:
    kafka, prefix, where, seed, begin_ns, nodes, pause_s, spool_bytes = arguments
    directory, world = Path(where), World(int(seed), int(begin_ns))
    options = {"metadata_max_age_ms": "3000"}
    spools = [Spool(directory / f"spool-{node}", int(spool_bytes)) for node in range(int(nodes))]
    publishers = [
        Publisher(KafkaSettings(kafka, options=options), spool, "ledger", f"node-{node}", prefix)
        for node, spool in enumerate(spools)
    ]
    journals = {(n, k): Journal(journal_path(directory, n, k)) for n in range(int(nodes)) for k in KINDS}
    for publisher in publishers:
        publisher.start()
    stop = directory / "stop"
    while not stop.exists():
        for (node, kind), journal in journals.items():
            if int(spool_bytes) > 1 << 24 and spools[node].loads().messages > MOST_WAITING:
                continue
            number = journal.number
            batch = world.batch(node, kind, number)
            start = world.begin_ns + number * STEP_NS
            journal.begin()
            publishers[node].publish(kind, kind, batch, start, start + STEP_NS, events=ROWS[kind])
            journal.end()
            time.sleep(float(pause_s))
    sent = [publisher.close(60) for publisher in publishers]
    for spool in spools:
        spool.close()
    return 0 if all(sent) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
