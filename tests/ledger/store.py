"""What the tables say, in the shape of ``Sums.tables``."""

from __future__ import annotations

from collections import Counter

QUERIES = {
    "samples": "SELECT type, service, node, count(), sum(value) FROM samples GROUP BY 1, 2, 3",
    "samples_1h": "SELECT type, service, toUnixTimestamp(time), sum(value) FROM samples_1h GROUP BY 1, 2, 3",
    "events": "SELECT node, service, count(), sum(latency_ns) FROM events GROUP BY 1, 2",
    # Rows, not FINAL: each message has one row once equal ones are merged, and never two different ones.
    "intervals": "SELECT node, schema, uniqExact(topic, partition, offset), sum(rows), sum(events) "
    "FROM (SELECT DISTINCT * FROM intervals) GROUP BY 1, 2",
    "hotspots_final": "SELECT toUnixTimestamp(window_start), type, service, version, function, sum(self), sum(total) "
    "FROM hotspots_final GROUP BY 1, 2, 3, 4, 5",
    "latency_final": "SELECT toUnixTimestamp(window_start), node, service, operation, sum(count), sum(sum_ns), "
    "max(max_ns), sumMap(buckets, counts) FROM latency_final GROUP BY 1, 2, 3, 4",
}
FIELDS = {
    "samples": ("rows", "value"), "samples_1h": (), "events": ("rows", "latency"),
    "intervals": ("messages", "rows", "events"), "hotspots_final": ("self", "total"),
    "latency_final": ("count", "sum", "max"),
}  # fmt: skip


def tables(client) -> dict[str, Counter]:
    """Return every table's sums, zeros left out."""
    found = {}
    for table, query in QUERIES.items():
        sums: Counter = Counter()
        fields = FIELDS[table]
        for row in client.query(query).result_rows:
            if table == "latency_final":
                *row, (buckets, counts) = row
                sums.update({(*row[:4], bucket): count for bucket, count in zip(buckets, counts, strict=True)})
            if not fields:
                sums[tuple(row[:-1])] = row[-1]
                continue
            key, values = tuple(row[: -len(fields)]), row[-len(fields) :]
            sums.update({(*key, name): value for name, value in zip(fields, values, strict=True)})
        found[table] = +sums
    return found


def differences(wanted: dict[str, Counter], found: dict[str, Counter]) -> list[str]:
    """Return in words what differs; a few of each table."""
    lines = []
    for table, sums in wanted.items():
        keys = [key for key in sums.keys() | found[table].keys() if sums[key] != found[table][key]]
        if keys:
            shown = ", ".join(f"{k}: {sums[k]} known, {found[table][k]} stored" for k in sorted(keys, key=str)[:3])
            total = sum(found[table].values()) - sum(sums.values())
            lines.append(f"{table}: {len(keys)} of {len(sums)} sums differ by {total} together: {shown}")
    return lines
