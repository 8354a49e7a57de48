"""How late a reader is."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.lag import LATE_S, Lag


def test_it_is_the_age_of_the_oldest_message_that_waits():
    lag = Lag()
    assert lag.seconds(5.0) == 0
    lag.observe("a", 10, 10, 0.0)
    lag.observe("a", 10, 17, 1.0)
    lag.observe("a", 10, 23, 4.0)
    lag.observe("b", 0, 3, 3.0)
    assert lag.seconds(6.0) == 5.0
    lag.observe("a", 17, 23, 6.0)  # the first seven are done; what came at 4 s waits
    assert lag.seconds(6.0) == 3.0  # b
    lag.keep(["a"])
    assert lag.seconds(6.0) == 2.0
    lag.observe("a", 23, 23, 7.0)
    assert lag.seconds(100.0) == 0


def test_a_busy_reader_that_is_never_at_the_end_is_not_late_and_one_that_stands_still_is():
    busy, stuck = Lag(), Lag()
    for second in range(100):
        busy.observe(0, second * 1000 - 1500, second * 1000, float(second))
        stuck.observe(0, 7, second * 1000, float(second))
    assert busy.seconds(99.0) <= 2
    assert busy.trouble(99.0) == ""
    assert stuck.trouble(LATE_S / 2) == ""
    assert stuck.seconds(99.0) == 98
    assert "98 s behind" in stuck.trouble(99.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.floats(0, 5)), max_size=400))
def test_it_is_never_too_high_and_its_memory_is_bounded(steps):
    lag, now, position, end = Lag(), 0.0, 0, 0
    arrived = []  # (time, offset) of every message
    for read, more, pause in steps:
        now += pause
        arrived += [(now, end + i) for i in range(more)]
        end += more
        position = min(end, position + read * 11)
        lag.observe(0, position, end, now)
        waiting = [at for at, offset in arrived if offset >= position]
        assert lag.seconds(now) <= (now - min(waiting) if waiting else 0) + 1e-9
        assert (lag.seconds(now) == 0) or waiting
        assert len(lag._marks[0]) <= 64
