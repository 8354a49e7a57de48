"""``perfstream profile web`` in a real browser, over a real store whose every sum is known."""

import hashlib
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.integration import known_rows

pytestmark = pytest.mark.services
WEB = Path(__file__).parents[2] / "dashboards" / "web"


@pytest.fixture(scope="module")
def known(store):
    name = "web_known"
    store.post(f"CREATE DATABASE {name}")
    yield known_rows.fill(store, name)
    store.post(f"DROP DATABASE {name} SYNC")


@pytest.fixture(scope="module")
def address(known):
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "profile", "web", "--port", "0", "--dsn", known.dsn],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield re.search(r"http://\S+", process.stdout.readline())[0]
    process.terminate()
    assert process.wait(10) == 0
    process.stdout.close()


@pytest.fixture
def page(browser, address):
    """A page that may speak to the server only, and must not complain."""
    one = browser.new_page(viewport={"width": 1400, "height": 900})
    complaints = []
    one.on("pageerror", lambda error: complaints.append(str(error)))
    one.on("request", lambda request: request.url.startswith((address, "data:")) or complaints.append(request.url))
    yield one
    one.close()
    assert complaints == []


def times(known):
    return {"from": known.start.isoformat(), "to": known.end.isoformat()}


def show(page, address, **query):
    page.goto(f"{address}?{urllib.parse.urlencode(query)}")
    page.wait_for_selector("main canvas")
    return page


def table(page):
    """Return {symbol: [texts of the other columns]} of the rows that are drawn."""
    rows = page.locator('[data-testid="topTable"] [role="row"]').all_inner_texts()
    cells = [[cell for cell in row.split("\n") if cell.strip()] for row in rows]
    return {cell[0]: cell[1:] for cell in cells if len(cell) > 1 and cell[0] != "Symbol"}


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def get(address, path, **headers):
    request = urllib.request.Request(address + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def nanoseconds(text):
    number, unit = text.split()
    return (
        float(number)
        * {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9, "min": 60e9, "mins": 60e9, "hour": 3600e9, "hours": 3600e9}[unit]
    )


def test_what_is_shown_is_what_is_stored_and_the_address_keeps_it(page, address, known):
    show(page, address, **times(known))
    assert known.sum() > 0
    page.get_by_label("Selection service").select_option("shop")
    page.wait_for_selector("main[data-query*=shop]")
    found, wanted = table(page), known.top(service="shop")
    assert len(found) >= 3
    for name, (own, total) in found.items():
        if name not in ("total", "(other)"):
            assert nanoseconds(own) == pytest.approx(wanted[name][0], rel=0.01)
            assert nanoseconds(total) == pytest.approx(wanted[name][1], rel=0.01), name  # recursion counts once
    page.get_by_label("Selection version").select_option("v1.1")
    page.wait_for_selector("main[data-query*='v1.1']")
    kept = page.url
    own = nanoseconds(table(page)["walk"][0])
    assert own == pytest.approx(known.top(service="shop", version="v1.1")["walk"][0], rel=0.01)
    page.goto("about:blank")
    page.goto(kept)
    page.wait_for_selector("main canvas")
    assert page.get_by_label("Selection version").input_value() == "v1.1"
    page.screenshot(path=screenshots() / "web.png")


def test_search_sandwich_and_comparison(page, address, known):
    show(page, address, matcher='shop{version="v1.0"}', matcher2='shop{version="v1.1"}', compare="1",
         from2=times(known)["from"], to2=times(known)["to"], **times(known))  # fmt: skip
    assert page.get_by_label("Comparison version").input_value() == "v1.1"
    rows = table(page)
    assert {"main", "walk", "alpha", "beta"} <= set(rows)
    sums = [known.top(service="shop", version=version) for version in ("v1.0", "v1.1")]
    wholes = [sum(own for own, _ in side.values()) for side in sums]
    for name, (baseline, comparison, *_) in rows.items():
        if name not in ("total", "(other)"):
            for text, side, whole in zip((baseline, comparison), sums, wholes, strict=True):
                assert float(text.rstrip("%")) == pytest.approx(side.get(name, (0, 0))[1] / whole * 100, abs=0.2), name
    page.screenshot(path=screenshots() / "web-compare.png")
    page.get_by_placeholder("Search...").fill("walk")
    until(lambda: set(table(page)) == {"walk"})
    page.get_by_label("Show in sandwich view").first.click()
    until(lambda: page.locator("main canvas").count() == 2)  # callers and callees
    page.screenshot(path=screenshots() / "web-sandwich.png")


def test_a_flame_grows_from_the_bottom_and_is_asked_where_it_is_drawn(page, address, known):
    drawn = """() => { const c = document.querySelector('main canvas'), p = c.getContext('2d'); const rows = [];
        for (let y = 6; y < c.height; y += 22 * window.devicePixelRatio)
            rows.push(p.getImageData(0, y, c.width, 1).data.filter((v, i) => i % 4 === 3 && v).length);
        return rows; }"""
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    show(page, address, matcher='shop{version="v1.1"}', **times(known))
    until(lambda: sum(page.evaluate(drawn)) > 0)
    icicle = page.evaluate(drawn)
    assert icicle[0] == max(icicle) > icicle[-1]
    box = page.locator("main canvas").bounding_box()

    def told(row):
        """Return what is said of the bar in the middle of a row, "" when nothing is."""
        for near in (9, 11):
            page.mouse.move(box["x"] + box["width"] / 3 + near, box["y"] + row * box["height"] / len(icicle) + near)
        found = page.locator("body > *", has_text="Samples:").last
        return found.inner_text() if found.count() else ""

    until(lambda: told(0).startswith("total"))
    until(lambda: told(1) and not told(1).startswith("total"))
    above = told(1)
    asked = len(requests)
    page.get_by_label("orientation").select_option("flame")
    until(lambda: page.evaluate(drawn) == icicle[::-1])
    assert "flame=1" in page.url
    assert len(requests) == asked  # nothing is read anew
    until(lambda: told(len(icicle) - 1).startswith("total"))
    until(lambda: told(len(icicle) - 2) == above)
    page.screenshot(path=screenshots() / "web-flame.png")
    page.goto(page.url)
    page.wait_for_selector("main canvas")
    until(lambda: page.evaluate(drawn) == icicle[::-1])
    page.get_by_label("orientation").select_option("icicle")
    until(lambda: page.evaluate(drawn) == icicle)
    assert "flame" not in page.url


def test_a_selection_that_cannot_be_read_says_where(page, address, known):
    show(page, address, **times(known))
    box = page.get_by_label("Selection matcher")
    box.fill('shop{version="v1.0"')
    box.press("Enter")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "expected ',' or '}'" in alert.inner_text()
    box.fill("nobody")
    box.press("Enter")
    until(lambda: alert.count() and "nothing recorded" in alert.inner_text())


def test_deep_and_wide_graphs_stay_fluid(page, address, known):
    """50,000 nodes and a stack of 1,000 frames: more than the store's answers have, where small nodes are folded."""
    levels, names, values = [0], ["total"], [50_000]
    for branch in range(490):
        for depth in range(100):
            levels.append(depth + 1)
            names.append(f"f{branch % 31}_{depth}")
            values.append(100)
    for depth in range(1000):
        levels.append(depth + 1)
        names.append(f"deep_{depth}")
        values.append(1000)
    graph = {
        "unit": "count", "level": levels, "value": values, "label": list(range(len(names))), "names": names,
        "self": [0] * len(names), "about": "made",
    }  # fmt: skip
    assert len(levels) > 50_000 - 10
    page.route("**/api/flamegraph?*", lambda route: route.fulfill(json=graph))
    began = time.monotonic()
    show(page, address, **times(known))
    drawn = time.monotonic() - began
    # One frame takes as long as the page needs to answer; the longest while something is clicked is what is felt.
    page.evaluate("""() => { window.longest = 0; let last = performance.now();
        const tick = (now) => {
            window.longest = Math.max(window.longest, now - last); last = now; requestAnimationFrame(tick); };
        requestAnimationFrame(tick); }""")
    canvas = page.locator("main canvas").last
    box = canvas.bounding_box()
    for at in (0.2, 0.5, 0.8):
        page.mouse.move(box["x"] + box["width"] * at, box["y"] + 40)
        page.wait_for_timeout(50)
    page.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + 30)
    page.wait_for_timeout(300)
    print(f"drawn after {drawn:.1f} s, longest frame {page.evaluate('window.longest'):.0f} ms")
    assert drawn < 20
    assert page.evaluate("window.longest") < 3000


def test_only_this_machine_may_look_and_only_look(address, known):
    assert get(address, "api/choices?since=1h")[0] == 200
    assert get(address, "api/choices", Host="evil.example")[0] == 403
    assert get(address, "../../etc/passwd")[0] == 404
    status, body, headers = get(address, "api/flamegraph?matcher=%7Bx%3D1%7D")
    assert (status, headers["Content-Type"]) == (400, "application/json")
    assert "unknown label" in json.loads(body)["error"]
    assert get(address, "api/flamegraph?matcher=a" + "b" * 20_000)[0] == 400
    request = urllib.request.Request(address + "api/choices", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    with refused.value:
        assert refused.value.code == 405
    status, body, headers = get(address, f"flamegraph.html?from={known.start.timestamp():.0f}&to=now")
    assert status == 200
    assert b"walk" in body
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_the_bundle_is_that_of_its_sources():
    folder, hashed = WEB / "viewer", hashlib.sha256()
    for path in (
        "package.json",
        "package-lock.json",
        "build.mjs",
        *sorted(f"src/{p.name}" for p in (folder / "src").iterdir()),
    ):
        hashed.update((folder / path).read_bytes())
    with (WEB / "static" / "viewer.js").open() as file:
        assert f"sources: {hashed.hexdigest()} " in file.readline(), (
            "run npm ci && npm run build in dashboards/web/viewer"
        )


def screenshots():
    folder = Path(__file__).parents[2] / "artifacts"
    folder.mkdir(exist_ok=True)
    return folder
