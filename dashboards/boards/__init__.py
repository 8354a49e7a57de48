"""Every dashboard, listed here and nowhere else."""

from dashboards.boards import comparison, events, fleet, hotspots, latency, memory, pipeline

ALL = (
    fleet.BOARD,
    hotspots.BOARD,
    comparison.BOARD,
    memory.BOARD,
    latency.BOARD,
    events.BOARD,
    pipeline.BOARD,
)
