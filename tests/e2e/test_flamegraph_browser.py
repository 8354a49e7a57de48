"""The flame graph page in a real browser, from a file, without network."""

import pytest

from dashboards.flamegraph.difference import difference
from dashboards.flamegraph.page import render
from dashboards.reading import Flamegraph

pytestmark = pytest.mark.e2e

EVIL = "</script><script>window.hacked=1</script>"
IMAGE = "<img src=x onerror='window.hacked=1'>"


def graph(rows, unit="nanoseconds"):
    """Rows of (level, value, self, label), in depth-first pre-order."""
    return Flamegraph(unit, *[[row[i] for row in rows] for i in range(4)])


SMALL = graph(
    [
        (0, 1000, 0, "total"),
        (1, 300, 0, EVIL),
        (2, 300, 300, IMAGE),
        (1, 700, 100, "main"),
        (2, 500, 0, "work"),
        (3, 200, 200, "alpha"),
        (3, 300, 200, "beta"),
        (4, 100, 100, "alpha"),
        (2, 100, 100, "idle_[k]"),
    ]
)


@pytest.fixture
def show(browser, tmp_path):
    pages = []

    def open_page(shown, **options):
        path = tmp_path / "flame.html"
        path.write_text(render(shown, "shop v1.0 · cpu", "cpu{}"), encoding="utf-8")
        page = browser.new_page(viewport={"width": 1200, "height": 700}, **options)
        page.context.set_offline(True)
        errors, requests = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function("window.flamegraph && window.flamegraph.drawn > 0")
        pages.append((page, errors, requests))
        return page

    yield open_page
    for page, errors, requests in pages:
        assert not errors
        assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
        page.close()


def click(page, name):
    box = page.locator("#canvas").bounding_box()
    place = page.evaluate("name => flamegraph.place(name)", name)
    page.mouse.click(box["x"] + place["x"] + place["w"] / 2, box["y"] + place["y"] + 8)


def hover(page, name):
    box = page.locator("#canvas").bounding_box()
    place = page.evaluate("name => flamegraph.place(name)", name)
    page.mouse.move(box["x"] + place["x"] + place["w"] / 2, box["y"] + place["y"] + 8)
    page.wait_for_function("!document.getElementById('tip').hidden")


def test_names_of_functions_are_never_markup(show):
    page = show(SMALL)
    hover(page, IMAGE)
    assert page.locator("#tip b").inner_text() == IMAGE
    hover(page, EVIL)
    assert page.locator("#tip b").inner_text() == EVIL
    click(page, EVIL)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


def test_search_counts_nested_matches_once(show):
    page = show(SMALL)
    page.fill("#search", "alpha|beta")
    assert page.locator("#matched").inner_text() == "matched 50.00 %"
    page.fill("#search", "alpha")
    assert page.locator("#matched").inner_text() == "matched 30.00 %"
    page.fill("#search", "(")
    assert "bad" in page.locator("#search").get_attribute("class")
    page.keyboard.press("Escape")
    assert page.locator("#matched").inner_text() == ""


def test_zoom_fills_the_width_and_reset_undoes_it(show):
    page = show(SMALL)
    whole = page.evaluate("flamegraph.place('total').w")
    before = page.evaluate("flamegraph.place('work')")
    assert abs(before["w"] - whole / 2) < 1
    click(page, "work")
    assert page.evaluate("flamegraph.zoomed") == "work"
    assert abs(page.evaluate("flamegraph.place('work').w") - whole) < 1
    assert page.evaluate("flamegraph.place('idle_[k]')") is None
    page.click("#reset")
    assert page.evaluate("flamegraph.zoomed") == "total"
    assert page.evaluate("flamegraph.place('work')") == before


def test_details_show_self_total_and_share(show):
    page = show(SMALL)
    hover(page, "beta")
    assert "total 300 ns (30.00 %)" in page.locator("#status").inner_text()
    assert "self 200 ns (20.00 %)" in page.locator("#status").inner_text()


def test_kernel_functions_have_a_colour_of_their_own(show):
    page = show(SMALL)
    colour = """name => {
        const p = flamegraph.place(name), c = document.getElementById("canvas"), r = window.devicePixelRatio;
        return Array.from(c.getContext("2d").getImageData((p.x + p.w - 6) * r, (p.y + 3) * r, 1, 1).data);
    }"""
    red, _green, blue, _alpha = page.evaluate(colour, "idle_[k]")
    assert blue > red
    red, _green, blue, _alpha = page.evaluate(colour, "work")
    assert red > blue


def test_a_difference_is_red_where_it_grew_and_shows_what_was_removed(show):
    old = graph([(0, 1000, 0, "total"), (1, 100, 100, "gone"), (1, 200, 200, "grew"), (1, 700, 700, "same")])
    new = graph([(0, 50, 0, "total"), (1, 15, 15, "grew"), (1, 35, 35, "same")])
    page = show(difference(old, new))
    colour = """name => {
        const p = flamegraph.place(name), c = document.getElementById("canvas"), r = window.devicePixelRatio;
        return Array.from(c.getContext("2d").getImageData((p.x + p.w - 6) * r, (p.y + 3) * r, 1, 1).data);
    }"""
    red, _green, blue, _alpha = page.evaluate(colour, "grew")
    assert red > blue + 20
    red, _green, blue, _alpha = page.evaluate(colour, "gone")
    assert blue > red + 20
    red, _green, blue, _alpha = page.evaluate(colour, "same")
    assert abs(red - blue) < 20
    hover(page, "grew")
    assert "20.00 % → 30.00 % (+10.00 points)" in page.locator("#status").inner_text()
    hover(page, "gone")
    assert "change \u221210.00 points" in page.locator("#tip").inner_text()


def test_flame_turns_the_order_over(show):
    page = show(SMALL)
    icicle = page.evaluate("[flamegraph.place('total').y, flamegraph.place('work').y]")
    page.click("#flip")
    flame = page.evaluate("[flamegraph.place('total').y, flamegraph.place('work').y]")
    assert icicle[0] < icicle[1]
    assert flame[0] > flame[1]
    click(page, "work")
    assert page.evaluate("flamegraph.zoomed") == "work"


def test_the_theme_follows_the_system_and_the_button(show):
    page = show(SMALL, color_scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_fifty_thousand_nodes_and_a_thousand_frames_stay_fluid(show):
    rows = [(0, 10_000_000, 0, "total")]
    rows += [(level, 400_000, 0, f"deep_{level}") for level in range(1, 1000)] + [(1000, 400_000, 400_000, "bottom")]
    for top in range(480):
        rows.append((1, 20_000, 0, f"branch_{top}"))
        for leaf in range(100):
            rows.append((2, 200, 200, f"leaf_{top}_{leaf}"))
    rows[0] = (0, 400_000 + 480 * 20_000, 0, "total")
    page = show(graph(rows))
    assert page.evaluate("flamegraph.count") == len(rows) > 49_000
    # A frame costs what is seen: the rows of the deep stack on the screen, and the branches, whose leaves are too thin.
    assert page.evaluate("flamegraph.drawn") < 480 + 700 / 19 + 2
    milliseconds = page.evaluate(
        "() => { const t = performance.now(); for (let i = 0; i < 20; i++) flamegraph.draw();"
        " return (performance.now() - t) / 20; }"
    )
    print(f"one frame of {len(rows)} nodes: {milliseconds:.1f} ms")
    click(page, "deep_5")
    page.locator("#scroll").evaluate("e => { e.scrollTop = e.scrollHeight }")
    page.wait_for_function("flamegraph.place('bottom') && flamegraph.place('bottom').y < 700")
    click(page, "bottom")
    assert page.evaluate("flamegraph.zoomed") == "bottom"
