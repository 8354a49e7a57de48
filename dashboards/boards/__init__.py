"""Every dashboard, listed here and nowhere else."""

from dashboards.boards import events, fleet, hotspots, latency, pipeline

ALL = (fleet.BOARD, hotspots.BOARD, latency.BOARD, events.BOARD, pipeline.BOARD)
