"""``gadget top`` and ``snapshot --cluster``: each node's rows are those that it shows of itself; silent nodes leave."""

import contextlib
import json
import signal
import subprocess
from collections import Counter

import pytest

from tests.integration.test_agent import Agent, topics
from tests.integration.test_gadget_cluster import GADGET, Gadget
from tests.kernel import known as programs
from tests.kernel.known import Known

__all__ = ["topics"]
pytestmark = [pytest.mark.kernel, pytest.mark.services]
MESSAGES, SIZE, BACK = 103, 1009, 13
TABLES = "top_tcp,snapshot_socket,snapshot_process"
COLLECTORS = {"n1": f"{TABLES},top_ebpf", "n2": TABLES}
NODES = tuple(COLLECTORS)


@pytest.fixture(scope="module")
def moves(tmp_path_factory):
    return programs.build(programs.PROGRAMS / "moves.c", tmp_path_factory.mktemp("moves") / "perfmoves")


@pytest.fixture
def agents(broker, unique, topics, tmp_path):
    """Two agents that publish tables, as of two nodes; both see this machine."""
    with contextlib.ExitStack() as stack:
        made = []
        for node, collectors in COLLECTORS.items():
            directory = tmp_path / node
            directory.mkdir()
            settings = {"PERFSTREAM_NODE": node, "PERFSTREAM_AGENT_COLLECTORS": collectors}
            agent = Agent(directory, broker.address, unique, **settings)
            made.append((agent, stack.enter_context(agent.running())))
        for agent, _ in made:
            # With the few rights that they keep all of it runs.
            agent.until(lambda agent=agent: agent.get("/healthz")[0] == 200)
            assert "rights that it does not need" not in agent.log.read_text()
        yield [process for _, process in made]


def at_once(*commands):
    """Return what gadgets that end by themselves print, as (rows, what they say)."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([*GADGET, *each, "-o", "json"], **pipes) for each in commands]
    said = [each.communicate(timeout=60) for each in running]
    assert [each.returncode for each in running] == [0] * len(commands), said
    return [([json.loads(line) for line in out.splitlines()], err) for out, err in said]


def sums(rows):
    """Return {(who, connection): what was sent and received}."""
    found = Counter()
    for row in rows:
        who = tuple(row[name] for name in ("service", "version", "pid", "uid", "comm", "local", "peer"))
        for name in ("sent_bytes", "received_bytes", "sends", "receives"):
            found[(*who, name)] += row[name]
    return found


def of(node, rows):
    return [row for row in rows if row["node"] == node]


def test_every_node_is_shown_with_the_table_that_it_shows_itself(broker, unique, agents, moves, tmp_path):
    kafka = ("--cluster", "--kafka", broker.address, "--topic-prefix", unique)
    where = (*kafka, "--service", unique)
    top, json_ = ("top", "tcp"), ("-o", "json")
    with (
        Gadget(tmp_path / "here", *top, *json_, "--service", unique) as here,
        Gadget(tmp_path / "everywhere", *top, *json_, *where) as everywhere,
        Gadget(tmp_path / "second", *top, *json_, *where, "--node", "n2", "--sort", "received_bytes") as second,
        Gadget(tmp_path / "table", *top, *where, "--interval", "0.2") as table,
        Gadget(tmp_path / "programs", "top", "ebpf", *json_, *kafka, "--pid", str(agents[0].pid)) as own,
        Known(moves, "tcp", 4, MESSAGES, SIZE, BACK, service=unique) as program,
    ):
        said = program.run()
        everything = 2 * MESSAGES * (SIZE + BACK)  # both ends are on this machine

        def seen(rows):
            return sum(row["sent_bytes"] + row["received_bytes"] for row in rows)

        for wanted in NODES:
            Agent.until(lambda wanted=wanted: seen(of(wanted, everywhere.rows())) >= everything)
        for one in (here, second):
            Agent.until(lambda one=one: seen(one.rows()) >= everything)
        Agent.until(own.rows)
        Agent.until(lambda: any(": 4 rows, 0 lost" in line for line in table.lines()))
        # The workload does nothing more: the next interval of both has no row of it.
        Agent.until(lambda: "tcp of 2 nodes: 0 rows, 0 lost" in table.lines()[-2])

        sockets, processes = ("snapshot", "socket"), ("snapshot", "process")
        (live, _), (published, about), (process, _), (shown, _), (only, _) = at_once(
            (*sockets, "--pid", str(program.pid)),
            (*sockets, *kafka, "--pid", str(program.pid), "--sort", "state"),
            (*processes, "--service", unique),
            (*processes, *where),
            (*processes, *where, "--node", "n2", "--comm", "perfmoves", "--uid", "0"),
        )

        agents[1].send_signal(signal.SIGTERM)
        Agent.until(lambda: "tcp of 1 nodes" in table.lines()[-2])
        said_of = {one.path.name: one.end() for one in (here, everywhere, second, table, own)}

    client, server = f"127.0.0.1:{said['client_port']}", f"127.0.0.1:{said['port']}"
    mine = {key[5:]: value for key, value in sums(here.rows()).items()}
    assert mine == {
        (client, server, "sent_bytes"): MESSAGES * SIZE, (client, server, "received_bytes"): MESSAGES * BACK,
        (server, client, "sent_bytes"): MESSAGES * BACK, (server, client, "received_bytes"): MESSAGES * SIZE,
        **{(*ends, name): MESSAGES for ends in ((client, server), (server, client)) for name in ("sends", "receives")},
    }  # fmt: skip
    for node in NODES:
        assert sums(of(node, everywhere.rows())) == sums(here.rows())
    assert sums(second.rows()) == sums(here.rows())
    assert {row["node"] for row in second.rows()} == {"n2"}
    assert here.rows()[0].keys() == everywhere.rows()[0].keys()
    assert {row["cluster"] for row in everywhere.rows()} == {"c1"}
    assert all(0 < row["interval_ns"] < 60e9 for row in everywhere.rows())
    first = [row["received_bytes"] for row in second.rows() if row["time"] == second.rows()[0]["time"]]
    assert first == sorted(first, reverse=True)

    at = next(at for at, line in enumerate(table.lines()) if "tcp of 2 nodes: 4 rows, 0 lost" in line)
    assert table.lines()[at + 1].split()[:4] == ["NODE", "SERVICE", "PID", "COMM"]
    assert sorted(line.split()[0] for line in table.lines()[at + 2 : at + 6]) == ["n1", "n1", "n2", "n2"]
    assert "0 lost, of 2 nodes" in said_of["everywhere"]

    assert {(row["node"], row["comm"]) for row in own.rows()} == {("n1", "python")}
    assert max(row["runs"] for row in own.rows()) > 100

    assert len(live) == 4
    same = ("service", "pid", "uid", "comm", "protocol", "state", "local", "peer", "inode", "pids", "network_namespace")

    def what(rows, names):
        return Counter(tuple(row[name] for name in names) for row in rows)

    for node in NODES:
        assert what(of(node, published), same) == what(live, same)
        names = process[0].keys() - {"time", "cluster", "node", "rss_bytes", "arguments"}
        assert what(of(node, shown), names) == what(process, names)
    assert live[0].keys() == published[0].keys()
    states = [row["state"] for row in published]
    assert states == sorted(states)
    assert "0 lost, of 2 nodes" in about
    assert [(row["node"], row["pid"]) for row in only] == [("n2", program.pid)]


@pytest.mark.parametrize("gadget", ["top file", "snapshot socket"])
def test_where_nothing_is_published_it_says_what_agents_are_to_be_told(broker, unique, topics, gadget):
    where = ("--cluster", "--kafka", broker.address, "--topic-prefix", unique, "--timeout", "0.3")
    ((rows, said),) = at_once((*gadget.split(), *where))
    assert rows == []
    last = said.splitlines()[-1]
    assert f'agent.collectors names it, as ["default", "{gadget.replace(" ", "_")}"]' in last


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("top", "tcp", "--node", "n1"), "--cluster"),
        (("snapshot", "socket", "--node", "n1"), "--cluster"),
        (("snapshot", "process", "--cluster", "--kafka", "127.0.0.1:1", "--arguments"), "--arguments"),
        (("snapshot", "process", "--cluster", "--kafka", "127.0.0.1:1", "-o", "columns=arguments"), "no column"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(arguments, says):
    done = subprocess.run([*GADGET, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
