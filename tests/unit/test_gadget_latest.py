"""Rows of top and snapshot gadgets on their way: as events and back, bounded, and the latest of every node."""

import numpy as np
import pyarrow as pa
import pytest

from collectors.base import CommOnly
from collectors.catalogue import ALL, BY_NAME, chosen
from collectors.gadget.filters import Filters
from collectors.gadget.latest import ONCE_S, Latest
from collectors.gadget.watch_cluster import Followed, Shown
from collectors.processes import TICK_NS
from collectors.published_tables import PublishedSnapshot, PublishedTop
from collectors.snapshot.process import SnapshotProcess
from collectors.snapshot.socket import SnapshotSocket
from collectors.table_rows import ROWS, as_events, bounded, from_events, weights
from collectors.top.process import TopProcess
from collectors.top.tcp import TopTcp
from streams.schema import codec
from streams.schema.messages import EVENT, OTHER, Interval
from streams.schema.text_bounds import MAX_VALUE
from tests.unit.test_processes import Proc

GREATEST = (1 << 64) - 1


def connections(count=5, **more):
    """Return rows of ``top tcp``; row N has sent N bytes and received 1000."""
    rows = [
        {
            "namespace": "shop", "pod": "cart-0", "container": "cart", "service": f"svc{n}", "version": "v1",
            "pid": n, "uid": 1000 + n, "comm": "cart", "local": "[::1]:80", "peer": f"[::1]:{n}", "sent_bytes": n,
            "received_bytes": 1000, "sends": 2, "receives": 3,
        } | more
        for n in range(1, count + 1)
    ]  # fmt: skip
    return pa.RecordBatch.from_pylist(rows, schema=TopTcp.columns)


def kept(rows, most=100):
    return bounded(rows, weights(rows, TopTcp.sort), most, TopTcp.sums)


def sent(rows, **headers):
    """Return rows as a reader of the topic has them."""
    interval = Interval("top_tcp", "c1", "n1", "p", 0, 10_000_000_000, 20_000_000_000)
    value, coded = codec.encode("event", as_events("top_tcp", 10_000_000_000, rows, TopTcp.detail), interval)
    return codec.decode(coded, value, "event")[2]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_rows_come_back_from_events_as_they_were(count):
    rows = kept(connections(count))
    events = sent(rows)
    assert from_events(events, TopTcp.columns).equals(rows)
    assert events.schema.equals(EVENT)
    for at, event in enumerate(events.to_pylist(), start=1):
        assert (event["kind"], event["time_ns"], event["pid"], event["uid"]) == ("top_tcp", 10**10, at, 1000 + at)
        assert (event["service"], event["pod"], event["comm"]) == (f"svc{at}", "cart-0", "cart")
        assert (event["result"], event["latency_ns"], event["ppid"]) == (0, 0, 0)
        assert event["detail"] == f"[::1]:80 [::1]:{at}"
        assert dict(event["attributes"]) == {
            "local": "[::1]:80", "peer": f"[::1]:{at}", "sent_bytes": str(at), "received_bytes": "1000", "sends": "2",
            "receives": "3",
        }  # fmt: skip


@pytest.mark.parametrize("number", [0.1, 1 / 3, 1e-9, 123456789.125, 0.0])
def test_numbers_are_exact(number):
    columns = pa.schema([*TopTcp.columns, ("cpu_percent", pa.float64())])
    rows = kept(connections(1, sent_bytes=GREATEST)).drop_columns([ROWS])
    rows = pa.RecordBatch.from_arrays([*rows.columns, pa.array([number])], schema=columns)
    found = from_events(sent(bounded(rows, np.zeros(1), 9, ())), columns).to_pylist()
    assert (found[0]["cpu_percent"], found[0]["sent_bytes"]) == (number, GREATEST)


def test_what_is_left_out_is_one_row_with_the_sums():
    rows = kept(connections(7), most=3)
    assert rows.column("pid").to_pylist() == [5, 6, 7, 0]
    whole = from_events(sent(rows), TopTcp.columns).to_pylist()
    other = whole[-1]
    assert (other["service"], other["comm"], other["namespace"], other["uid"]) == (OTHER, OTHER, "", 0xFFFFFFFF)
    assert [other[name] for name in ("sent_bytes", "received_bytes", "sends", "receives")] == [
        1 + 2 + 3 + 4,
        4000,
        8,
        12,
    ]
    assert [row[ROWS] for row in whole] == [None, None, None, 4]
    assert sent(rows).column("detail")[-1].as_py() == "4 more"
    assert kept(connections(3), most=3).num_rows == 3


def test_a_text_beyond_its_bound_is_cut_and_nothing_else():
    rows = kept(connections(2, peer="ä" * MAX_VALUE))
    found = from_events(sent(rows), TopTcp.columns).to_pylist()
    assert all(row["peer"].endswith("ä…") and len(row["peer"]) > 1000 for row in found)
    assert [row["sent_bytes"] for row in found] == [1, 2]


def test_what_is_no_number_is_an_unreadable_record():
    events = sent(kept(connections(1, local="x")))
    columns = pa.schema([pa.field("local", pa.uint64())])
    with pytest.raises(pa.ArrowInvalid):
        from_events(events, columns)
    followed = Followed(columns, "", moment=False)
    followed.take(Interval("top_tcp", "c1", "n1", "p", 0, 0, 10), events)
    assert (followed.messages, followed.unreadable, len(followed.latest)) == (0, 1, 0)


@pytest.fixture
def proc(tmp_path):
    made = Proc(tmp_path)
    for pid in range(1, 8):
        made.add(pid, f"p{pid}", user=10)
    return made


def test_the_agent_publishes_the_first_rows_and_the_sum_of_the_others(proc):
    collector = PublishedTop(TopProcess(CommOnly(), proc.root), most=2)
    collector.start()
    for pid in range(1, 8):
        proc.add(pid, f"p{pid}", user=10 + pid, io=(0, 4096))
    batch = collector.collect(5, 9)
    assert (batch.events, batch.lost, collector.name) == (7, 0, "top_process")
    rows = from_events(batch.batch, TopProcess.columns).to_pylist()
    assert [row["comm"] for row in rows] == ["p6", "p7", OTHER]
    assert {event["time_ns"] for event in batch.batch.to_pylist()} == {5}
    tick = rows[1]["user_ns"] / 7
    assert [row["user_ns"] for row in rows] == [6 * tick, 7 * tick, (1 + 2 + 3 + 4 + 5) * tick]
    assert rows[-1]["written_bytes"] == 5 * 4096
    assert collector.collect(9, 10).batch.num_rows == 3


def test_rates_are_of_the_time_that_really_passed(proc, monkeypatch):
    now = iter((100.0, 102.0, 103.0))
    monkeypatch.setattr("collectors.published_tables.time.monotonic", lambda: next(now))
    collector = PublishedTop(TopProcess(CommOnly(), proc.root))
    collector.start()
    for user, seconds in ((40, 2), (70, 1)):
        proc.add(7, "p7", user=user)
        rows = from_events(collector.collect(0, 10**10).batch, TopProcess.columns).to_pylist()
        assert rows[6]["user_ns"] == 30 * TICK_NS
        assert rows[6]["cpu_percent"] == pytest.approx(30 * TICK_NS / seconds / 1e9 * 100)


class Counted(TopTcp):
    """What the kernel would have counted."""

    def start(self):
        pass

    def collect(self, seconds):
        return connections(7)

    def lost(self):
        return 11


def test_events_are_calls_as_those_that_were_lost_are():
    collector = PublishedTop(Counted(), most=3)
    collector.start()
    batch = collector.collect(0, 10)
    assert (batch.events, batch.lost, batch.batch.num_rows) == (7 * (2 + 3), 11, 4)


def test_a_snapshot_is_of_its_intervals_end_and_keeps_the_order(proc):
    batch = PublishedSnapshot(SnapshotProcess(CommOnly(), proc=proc.root), most=3).collect(5, 9)
    assert batch.events == 7
    assert {event["time_ns"] for event in batch.batch.to_pylist()} == {9}
    columns = SnapshotProcess.columns
    rows = from_events(batch.batch, columns.remove(columns.get_field_index("arguments"))).to_pylist()
    assert [(row["comm"], row["ppid"]) for row in rows] == [("p1", 1), ("p2", 1), ("p3", 1), (OTHER, 0)]
    assert not any("arguments" in dict(event["attributes"]) for event in batch.batch.to_pylist())


def test_of_too_many_sockets_those_of_processes_are_kept():
    rows = [
        {"pid": pid, "send_queue_bytes": queue, "receive_queue_bytes": 0} for pid, queue in ((0, 99), (7, 0), (8, 5))
    ]
    schema = pa.schema([SnapshotSocket.columns.field(name) for name in rows[0]])
    weight = SnapshotSocket.weight(pa.RecordBatch.from_pylist(rows, schema=schema))
    assert np.argsort(-weight).tolist() == [2, 1, 0]


def test_agents_publish_tables_only_where_they_are_named():
    tables = [entry for entry in ALL if entry.verb in ("top", "snapshot")]
    assert len(tables) == 8
    assert not any(entry in chosen(("default",)) for entry in tables)
    assert chosen(("top_tcp", "snapshot_socket")) == (BY_NAME["top_tcp"], BY_NAME["snapshot_socket"])
    assert all(entry.lever.stops for entry in tables)


S = 1_000_000_000


def of(node, start, end, sequence=0, producer="p", lost=0):
    return Interval("top_tcp", "c1", node, producer, sequence, start * S, end * S, lost=lost)


def part(number):
    return pa.RecordBatch.from_pydict({"n": [number]})


def numbers(latest):
    return [row["n"] for batch in latest.rows() for row in batch.to_pylist()]


def test_the_latest_interval_of_each_node_counts():
    latest = Latest()
    latest.take(of("b", 0, 10, lost=3), part(1), 10)
    latest.take(of("a", 0, 10), part(2), 10.5)
    assert (numbers(latest), latest.lost(), len(latest)) == ([2, 1], 3, 2)
    latest.take(of("b", 10, 20, 1), part(3), 20)
    assert (numbers(latest), latest.lost()) == ([2, 3], 0)
    # In several messages, one of which comes again.
    latest.take(of("b", 10, 20, 2, lost=1), part(4), 20)
    latest.take(of("b", 10, 20, 2, lost=1), part(4), 20)
    assert (numbers(latest), latest.lost()) == ([2, 3, 4], 1)
    # Its clock was set back, or it was started anew: what comes last counts.
    latest.take(of("b", 5, 15, 0, "q"), part(5), 21)
    assert numbers(latest) == [2, 5]


def test_a_silent_node_leaves_after_three_of_its_intervals():
    latest = Latest()
    latest.take(of("slow", 0, 10), part(1), 10)
    latest.take(of("fast", 9, 10), part(2), 10)
    for at in range(11, 21):
        latest.take(of("fast", at - 1, at, at), part(at), at)
    latest.take(of("slow", 10, 20, 1), part(3), 20)
    assert not latest.forget(20 + 3.9)
    assert latest.forget(20 + 4.1)
    assert numbers(latest) == [3]
    assert not latest.forget(20 + 30.9)
    assert latest.forget(20 + 31.1)
    assert len(latest) == 0


def test_a_node_that_spoke_once_is_given_time():
    latest = Latest()
    latest.take(of("a", 9, 10), part(1), 10)  # an agent's first interval ends with the clock's
    assert not latest.forget(10 + ONCE_S - 0.1)
    assert latest.forget(10 + ONCE_S + 0.1)
    latest.take(of("a", -(1 << 33), 1 << 33), part(1), 50)
    latest.take(of("a", 10, 20), part(1), 60)
    assert latest.forget(60 + 4 * 3600)  # whatever its clock says


def test_rows_of_all_nodes_are_chosen_sorted_and_counted():
    followed = Followed(TopTcp.columns, "", moment=False)
    events = sent(kept(connections(7), most=3))
    came = [part for node in ("n2", "n1") for part in followed.take(of(node, 10, 20), events)]
    shown = Shown(Filters(), ("sent_bytes",), None)
    rows, more = followed.chosen(followed.latest.rows(), shown)
    assert more == 8
    assert ROWS not in rows.schema.names
    found = [(row["node"], row["service"], row["sent_bytes"]) for row in rows.to_pylist()]
    assert found[:4] == [("n1", OTHER, 10), ("n2", OTHER, 10), ("n1", "svc7", 7), ("n2", "svc7", 7)]
    assert (rows[0][0].as_py(), rows.column("interval_ns")[0].as_py()) == ("1970-01-01T00:00:20.000000000Z", 10 * S)
    (row,) = followed.chosen(came, Shown(Filters(node="n2", pid=6), None, None))[0].to_pylist()
    assert (row["node"], row["cluster"], row["service"]) == ("n2", "c1", "svc6")
    assert followed.chosen([], shown)[0].num_rows == 0
    one = Followed(TopTcp.columns, "n1", moment=True)
    assert one.take(of("n2", 10, 20), events) == []
    assert len(one.latest) == 0
