"""``make bench``: runs what is asked for (default: everything) and prints one JSON line for each figure."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

from tests.bench import agent, gadgets, ingest, pipeline, reading, recovery

PARTS: dict[str, Callable[[], Iterator[tuple[str, float, str]]]] = {
    "pipeline": pipeline.figures,
    "recovery": recovery.figures,
    "reading": reading.figures,
    "agent": agent.figures,
    "gadgets": gadgets.figures,
    "ingest": ingest.figures,
}


def main(names: list[str]) -> int:
    """Print the figures of the parts named; returns the exit code."""
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        sys.stderr.write(f"no part {unknown[0]!r}; there are: {', '.join(PARTS)}\n")
        return 2
    for name in names or PARTS:
        for figure, value, unit in PARTS[name]():
            sys.stdout.write(json.dumps({"name": figure, "value": round(value, 4), "unit": unit}) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
