"""TCP: connections, what fails, what is sent again or dropped, and round trips."""

from dashboards import dashboard_queries as q
from dashboards import network_queries as n
from dashboards.boards.marks import MARKS
from dashboards.boards.parts import Board, Panel

_RTT = {"probe": "tcprtt"}

BOARD = Board(
    uid="perfstream-tcp",
    title="perfstream / TCP",
    description="Every connect, retransmitted segment and dropped packet of the nodes; round trips at every piece of "
    "data that a process takes.",
    annotations=MARKS,
    panels=(
        Panel("Connects", "stat", q.EVENT_COUNT, width=6, height=4, constants={"kind": "tcpconnect"}),
        Panel("Failed connects", "stat", n.CONNECTS_FAILED, width=6, height=4, warn=1),
        Panel("Segments sent again", "stat", q.EVENT_COUNT, width=6, height=4, constants={"kind": "tcpretrans"}),
        Panel("Packets dropped", "stat", q.EVENT_COUNT, width=6, height=4, constants={"kind": "tcpdrop"}),
        Panel("Connects a second, by outcome", "timeseries", n.CONNECTS, unit="ops", stacked=True, needs="tcpconnect"),
        Panel("Time to connect", "timeseries", n.CONNECT_LATENCY, unit="ns", needs="tcpconnect",
              description="From the first packet to the answer, of connects that succeeded."),
        Panel("Segments sent again, by service", "timeseries", n.RETRANSMITS, stacked=True, needs="tcpretrans"),
        Panel("Packets dropped, by reason", "timeseries", n.DROPS, stacked=True, needs="tcpdrop",
              description="The kernel's own reasons."),
        Panel("Round trips", "heatmap", q.LATENCY_HEATMAP, width=24, height=10, constants=_RTT, min_interval="1m",
              needs="tcprtt", description="Smoothed, as the kernel keeps them; each row is a factor of two."),
        Panel("Round trips, p99 by service's port", "timeseries", q.LATENCY_P99_BY_OPERATION, unit="ns",
              constants=_RTT, min_interval="1m", needs="tcprtt"),
        Panel("Round trips, p99 by service", "timeseries", q.LATENCY_P99_BY_SERVICE, unit="ns", constants=_RTT,
              min_interval="1m", needs="tcprtt"),
        Panel("Connects that failed", "table", n.CONNECT_FAILURES, allowed_empty="no connect failed"),
        Panel("Sent again, by peer", "table", n.RETRANSMITS_BY_PEER, needs="tcpretrans"),
        Panel("Dropped, by destination", "table", n.DROPS_TABLE, needs="tcpdrop"),
        Panel("Bytes of connections that ended", "table", n.TRAFFIC, needs="tcp",
              units={"sent": "bytes", "received": "bytes", "mean_ns": "ns"},
              description="From the collector tcp, which runs where agent.collectors names it."),
    ),
)  # fmt: skip
