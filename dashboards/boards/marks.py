"""Moments that every latency dashboard marks: what happened to the node explains what its latencies did."""

from dashboards import network_queries as n
from dashboards.boards.parts import Annotation

MARKS = (
    Annotation("OOM kills", n.OOM_MARKS, "red", "no process was killed for memory"),
    Annotation("Failed connects", n.FAILED_CONNECT_MARKS, "orange", "no connect failed"),
)
