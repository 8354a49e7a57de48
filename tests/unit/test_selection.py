"""Selections: matchers, durations and times; every mistake points at its character."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards import queries, selection
from dashboards.selection import Match, Selection, duration, instant, make, parse_matcher
from streams.schema.errors import UsageError
from streams.schema.messages import IDENTITY

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("shop", [("service", "=", "shop")]),
        ('shop{version="v1.0"}', [("service", "=", "shop"), ("version", "=", "v1.0")]),
        ('{node=~"a.*", pod!="x",}', [("node", "=~", "a.*"), ("pod", "!=", "x")]),
        (" shop { version != 'a' , node !~ '(b|c)' } ",
         [("service", "=", "shop"), ("version", "!=", "a"), ("node", "!~", "(b|c)")]),
        ("shop/api-2.x{}", [("service", "=", "shop/api-2.x")]),
        ("{}", []),
        (r'{service="a\"b\\c\d"}', [("service", "=", 'a"b\\c\\d')]),
        ("{service='it\\'s'}", [("service", "=", "it's")]),
        ('{service=~"a\\\\.b[0-9]+"}', [("service", "=~", "a\\.b[0-9]+")]),
        ('{service="}, x"}', [("service", "=", "}, x")]),
        (r'{service="a\tb\n"}', [("service", "=", "a\tb\n")]),
        (r"{service=`a\tb\"'`}", [("service", "=", "a\\tb\\\"'")]),
        (r'{service=~"\d+\pL\p{Greek}\z"}', [("service", "=~", "\\d+\\pL\\p{Greek}\\z")]),
    ],
)  # fmt: skip
def test_matchers(text, matches):
    assert [(m.label, m.operator, m.value) for m in parse_matcher(text)] == matches


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("", 1, "expected a service name or '{'"),
        ('="x"', 1, "expected a service name or '{'"),
        ('shop{versoin="v1"}', 6, "unknown label 'versoin'; known: cluster, node,"),
        ("shop{version=v1}", 14, "expected a value in quotes"),
        ('shop{version="v1}', 14, "this quote is not closed"),
        ('shop{version "v1"}', 14, "expected one of = != =~ !~"),
        ('shop{version="v1"', 18, "expected ',' or '}'"),
        ('shop{version="v1" node="n"}', 19, "expected ',' or '}'"),
        ("shop{", 6, "expected '}'"),
        ("shop{,}", 6, "expected a label"),
        ('shop{version="v1"} x', 20, "nothing may follow the selection"),
        ("shop x", 6, "nothing may follow the selection"),
        ('{node=~"a(b"}', 10, "not a regular expression: missing )"),
        ('{node=~"[[a"}', 9, "not a regular expression: unterminated"),
        ('{node=~"ab(?=c)"}', 11, "not a regular expression of RE2"),
        (r'{node!~"(a)\1"}', 12, "not a regular expression of RE2"),
        (r'{node=~"a\\\\b(c"}', 15, "not a regular expression: missing )"),
        ("{node=`x}", 7, "this quote is not closed"),
    ],
)
def test_a_mistake_points_at_its_character(text, at, message):
    with pytest.raises(UsageError) as caught:
        parse_matcher(text)
    first, shown, arrow = str(caught.value).split("\n")
    assert message in first
    assert first.endswith(f"at character {at}:")
    assert shown == f"  {text}"
    assert arrow == " " * (at + 1) + "^"


def test_the_arrow_stays_in_place_when_the_text_has_line_feeds():
    with pytest.raises(UsageError) as caught:
        parse_matcher('shop{\nversion\t"x"}')
    assert str(caught.value).split("\n")[1:] == ['  shop{ version "x"}', "                ^"]


def test_a_table_may_have_labels_of_its_own():
    assert parse_matcher('{probe=~"tcp.*"}', (*IDENTITY, "probe")) == (Match("probe", "=~", "tcp.*"),)
    with pytest.raises(UsageError, match="unknown label 'probe'"):
        parse_matcher('{probe="runqlat"}')


def test_a_matcher_has_a_bounded_length():
    with pytest.raises(UsageError, match="longer than 4096"):
        parse_matcher("x" * 5000)


@given(st.lists(st.tuples(st.sampled_from(IDENTITY), st.sampled_from(["=", "!="]), st.text(max_size=20)), max_size=4))
def test_any_value_survives_quoting(wanted):
    def quoted(value):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = "{" + ", ".join(f"{label}{operator}{quoted(value)}" for label, operator, value in wanted) + "}"
    assert [(m.label, m.operator, m.value) for m in parse_matcher(text)] == wanted


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(UsageError):
        parse_matcher(text)


def test_values_are_only_ever_bound():
    evil = "' OR 1=1 --"
    sql, parameters = queries.TOP["function"].bound(make(f'{{node!="{evil}"}}', service=evil, now=NOW), n=3)
    assert evil not in sql
    assert (parameters["m0"], parameters["m1"], parameters["n"]) == (evil, evil, 3)
    assert "node != {m0:String} AND service = {m1:String}" in sql
    assert "@" not in sql


def test_expressions_match_the_whole_value():
    where, parameters = make('{node=~"a|b", pod!~"c"}', now=NOW).where(IDENTITY)
    assert "match(node, {m0:String}) AND NOT match(pod, {m1:String})" in where
    assert (parameters["m0"], parameters["m1"]) == ("^(?:a|b)$", "^(?:c)$")


def test_a_label_that_the_table_does_not_keep_is_refused():
    with pytest.raises(UsageError, match="'pod' is not kept here; select by cluster, namespace, service, version"):
        queries.hourly(queries.FLAMEGRAPH).bound(make('{pod="x"}', now=NOW))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("2d", 172800), ("1w", 604800)]
)
def test_durations(text, seconds):
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "5y", "1.5h", "5 m", "0s", "999999999w", "5m\n", "\u0665m"])
def test_what_is_no_duration(text):
    with pytest.raises(UsageError, match="is not "):
        duration(text)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("now", NOW),
        ("now-15m", NOW - timedelta(minutes=15)),
        ("2026-01-31T11:30", NOW - timedelta(minutes=30)),
        ("2026-01-31 11:30:05", NOW - timedelta(minutes=29, seconds=55)),
        ("2026-01-31T13:00+02:00", NOW - timedelta(hours=1)),
        ("2026-01-31", NOW - timedelta(hours=12)),
        ("1769860800", NOW),
        ("1769860800.5", NOW + timedelta(milliseconds=500)),
    ],
)
def test_instants(text, when):
    assert instant(text, NOW) == when


@pytest.mark.parametrize("text", ["", "yesterday", "now+5m", "2026-13-01", "17698608000000000", "12:00"])
def test_what_is_no_instant(text):
    with pytest.raises(UsageError):
        instant(text, NOW)


def test_ranges():
    assert make(now=NOW).start == NOW - timedelta(minutes=15)
    assert make(since="1h", end="now-1h", now=NOW) == Selection(NOW - timedelta(hours=2), NOW - timedelta(hours=1))
    with pytest.raises(UsageError, match="either --since or --from"):
        make(since="1h", start="now-2h", now=NOW)
    with pytest.raises(UsageError, match="the time range is empty"):
        make(start="now-1h", end="now-2h", now=NOW)


def test_times_reach_the_store_in_utc_milliseconds():
    east = datetime(2026, 1, 31, 14, tzinfo=timezone(timedelta(hours=2)))
    _where, parameters = Selection(east, east + timedelta(seconds=1.5)).where(IDENTITY)
    assert (parameters["start_ms"], parameters["end_ms"]) == (1769860800000, 1769860801500)


def test_what_a_selection_is_called():
    assert str(make('shop{node!="x"}', since="1m", now=NOW)) == (
        'cpu{service="shop", node!="x"} from 2026-01-31 11:59:00 to 2026-01-31 12:00:00 UTC'
    )
    assert str(make(type="", since="1m", now=NOW)).startswith("anything from ")


def test_also_adds_what_is_given():
    chosen = make(now=NOW).also(probe="runqlat", operation=None)
    assert chosen.matches == (Match("probe", "=", "runqlat"),)
    assert selection.OPERATORS[-1] == "="  # the shortest last, or "=~" would never be found
