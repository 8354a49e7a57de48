"""Every dashboard, listed here and nowhere else."""

from dashboards.boards import blockio, comparison, dns, events, fleet, hotspots, latency, memory, pipeline, tcp

ALL = (
    fleet.BOARD,
    hotspots.BOARD,
    comparison.BOARD,
    memory.BOARD,
    latency.BOARD,
    blockio.BOARD,
    tcp.BOARD,
    dns.BOARD,
    events.BOARD,
    pipeline.BOARD,
)
