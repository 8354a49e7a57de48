"""Log lines are JSON, and bad input cannot flood them."""

import json
import logging

from runtime.log import JsonFormatter, Once


def test_a_line_is_one_json_object_with_its_extra_fields(caplog):
    logger = logging.getLogger("perfstream.test")
    with caplog.at_level("INFO"):
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logger.warning(
                "x %s",
                1,
                extra={
                    "topic": "t",
                    "odd": {
                        1,
                    },
                },
                exc_info=True,
            )
    text = JsonFormatter("sink").format(caplog.records[0])
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["process"], line["logger"]) == ("warning", "sink", "perfstream.test")
    assert (line["message"], line["topic"], line["odd"]) == ("x 1", "t", "{1}")
    assert line["time"].endswith("Z")
    assert "ValueError: two" in line["exception"]


def test_a_key_is_logged_once_and_the_rest_is_counted(caplog, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("runtime.log.time.monotonic", lambda: clock[0])
    once = Once(logging.getLogger("perfstream.test"), every_s=300)
    assert [once.warning("a", "bad", record=n) for n in range(5)] == [True, False, False, False, False]
    assert once.warning("b", "bad")
    clock[0] += 300
    assert once.warning("a", "bad")
    assert [getattr(record, "suppressed", 0) for record in caplog.records] == [0, 0, 4]
    assert caplog.records[0].record == 0


def test_what_it_remembers_is_bounded(caplog):
    once = Once(logging.getLogger("perfstream.test"), bound=10)
    for number in range(1000):
        once.warning(str(number), "bad")
    assert len(once._seen) <= 10
