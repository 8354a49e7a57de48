"""Makes a killed engine's deduplication logs true again, before it starts.

The engine writes an insert's token to the table's log and then makes the part visible. A SIGKILL between the two leaves
a token without rows, and the repeat of that insert, which must bring them, would be dropped as one that is there
already. A logged part that neither is on disk nor was merged into one that is, never became visible: its token is taken
back, with the record that the engine itself writes when it drops a part. A line that was cut off is removed.

Cost: reads the logs' last 20,000 lines or so of each table; milliseconds.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from pathlib import Path

log = logging.getLogger(__name__)

_PART = re.compile(r"([^_]+)_(\d+)_(\d+)_\d+(?:_\d+)?\Z")
_ADD, _DROP = "1", "2"
_NUMBER = re.compile(r"deduplication_log_(\d+)\.txt\Z")


def take_back(path: Path) -> int:
    """Take back the tokens of inserts that never became visible in the store at ``path``; returns how many."""
    return sum(_table(logs) for logs in sorted(path.glob("store/*/*/deduplication_logs")))


def _table(logs: Path) -> int:
    numbered = {int(match.group(1)): file for file in logs.iterdir() if (match := _NUMBER.match(file.name))}
    if not numbered:
        return 0
    files = [numbered[number] for number in sorted(numbered)]
    tokens: dict[str, str] = {}
    for file in files:
        for line in _whole_lines(file):
            operation, part, token = line.split("\t", 2)
            if operation == _ADD:
                tokens[token] = part
            else:
                tokens.pop(token, None)
    there = _ranges(logs.parent)
    lost = {token: part for token, part in tokens.items() if not _covered(part, there)}
    if lost:
        with files[-1].open("a") as newest:
            newest.writelines(f"{_DROP}\t{part}\t{token}\n" for token, part in lost.items())
        log.info("tokens of inserts that never became visible are taken back", extra={"tokens": len(lost)})
    return len(lost)


def _whole_lines(file: Path) -> list[str]:
    text = file.read_text()
    whole, newline, cut = text.rpartition("\n")
    if cut:
        file.write_text(whole + newline)
    return [line for line in whole.split("\n") if line.count("\t") >= 2]


def _ranges(table: Path) -> dict[str, list[tuple[int, int]]]:
    found = defaultdict(list)
    for entry in table.iterdir():
        if match := _PART.match(entry.name):
            found[match.group(1)].append((int(match.group(2)), int(match.group(3))))
    return found


def _covered(part: str, there: dict[str, list[tuple[int, int]]]) -> bool:
    match = _PART.match(part)
    if match is None:
        return True  # not a name that this knows: leave it alone
    low, high = int(match.group(2)), int(match.group(3))
    return any(first <= low and high <= last for first, last in there.get(match.group(1), ()))
