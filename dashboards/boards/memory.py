"""What Go programs hold: heap and goroutines, and where they grow."""

from dashboards import dashboard_queries as q
from dashboards.boards.parts import Board, Panel

_NONE = "no Go program is scraped"

BOARD = Board(
    uid="perfstream-memory",
    title="perfstream / Heap and goroutines",
    description="From scraped and pushed profiles of what a process holds at one moment (inuse_space, goroutine).",
    panels=(
        Panel("Heap in use, by service", "timeseries", q.HEAP, unit="bytes", min_interval="1m", allowed_empty=_NONE,
              description="The mean of each instance's scrapes, added up over instances."),
        Panel("Goroutines, by service", "timeseries", q.GOROUTINES, min_interval="1m", allowed_empty=_NONE),
        Panel("Heap growth, by function", "table", q.HEAP_GROWTH, height=12, allowed_empty=_NONE,
              units={"first": "bytes", "last": "bytes", "growth": "bytes"},
              description="What a function has allocated and is held, in the first scrape and in the last."),
        Panel("Goroutine growth, by function", "table", q.GOROUTINE_GROWTH, height=12, allowed_empty=_NONE,
              description="Goroutines that wait or run in a function, in the first scrape and in the last."),
    ),
)  # fmt: skip
