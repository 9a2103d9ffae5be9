"""The pages in a real browser: they work, stay whole on paper and on a phone, can be read by everyone, load nothing."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from msmmiv.audit import load_assumptions
from tests.show.browser.conftest import PAGES

REPORTS = ["five", "star", "thousands", "three", "unbounded", "disjoint", "hostile"]
KINDS = ["star", "audit", "checklist", "decomposition"]
SECTIONS = [
    "answer", "question", "roles", "headline", "estimates", "stages", "rank", "weak", "assumptions", "sites", "across",
    "falsification", "reproduce", "references", "versions",
]  # fmt: skip
#: A4 less 15 mm on every side, in CSS pixels.
PAPER = (680, 1009)
CELLS = "table => [...table.tBodies[0].rows].map(r => [...r.cells].map(c => [c.dataset.v ?? null, c.textContent]))"


@dataclasses.dataclass
class Record:
    """A page and what it said and asked for."""

    page: object
    said: list[str] = dataclasses.field(default_factory=list)
    asked: list[str] = dataclasses.field(default_factory=list)


@pytest.fixture
def opened(browser, made):
    """Open a page by its name; nothing it asks for may lie outside its own file, whatever else a test looks at."""

    @contextmanager
    def open_page(name: str, **options) -> Iterator[Record]:
        viewport = {"width": options.pop("width", 1200), "height": options.pop("height", 900)}
        context = browser.new_context(viewport=viewport, **options)
        found = Record(context.new_page())
        found.page.on("console", lambda m: found.said.append(m.text))
        found.page.on("pageerror", lambda e: found.said.append(str(e)))
        found.page.on("request", lambda r: found.asked.append(r.url))
        found.page.on("dialog", lambda d: found.said.append(f"dialog {d.message}"))
        address = made(name).as_uri()
        found.page.goto(address)
        yield found
        assert found.said == []
        assert {url.partition("#")[0] for url in found.asked} == {address}
        context.close()

    return open_page


def ids(page, selector: str) -> list[str]:
    return page.eval_on_selector_all(selector, "found => found.map(e => e.id)")


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_whole_and_in_order(name, opened, made):
    with opened(name) as found:
        assert ids(found.page, "main > section > h2") == SECTIONS
        nine = [f"assumption-{a.id}" for a in load_assumptions()]
        assert ids(found.page, "details[id]") == nine
        assert found.page.locator("details[id] .badge").count() == 9
        links = found.page.eval_on_selector_all("a[href]", "found => found.map(a => a.getAttribute('href'))")
        assert [a for a in links if not found.page.locator(f'[id="{a[1:]}"]').count()] == []
        assert found.page.locator("figure svg").count() == found.page.locator("figure").count() > 5
    assert made(name).stat().st_size < (2_000_000 if name == "thousands" else 1_500_000)


@pytest.mark.parametrize("name", list(PAGES))
def test_a_page_fits_a_phone_and_a_desk(name, opened):
    for width in (390, 1200):
        with opened(name, width=width) as found:
            found.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
            wide = found.page.evaluate(
                "[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]"
            )
            assert max(wide[:2]) <= wide[2] == width
            # What is too wide scrolls inside a box of its own; nothing sticks out of the page.
            out = """() => [...document.querySelectorAll('main *, header *')].filter(e => !e.closest('svg, table, pre'))
                .filter(e => e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1)
                .map(e => e.outerHTML)"""
            assert found.page.evaluate(out) == []


@pytest.mark.parametrize(
    ("name", "colours"), [*((n, c) for n in KINDS for c in ("light", "dark")), ("hostile", "dark")]
)
def test_axe_finds_nothing_serious(name, colours, opened):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    with opened(name, color_scheme=colours) as found:
        found.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        result = axe.run(found.page, options={"resultTypes": ["violations"]})
        serious = [
            (v["id"], v["help"], [n["html"][:200] for n in v["nodes"][:3]])
            for v in result.response["violations"]
            if v["impact"] in ("serious", "critical")
        ]
        assert serious == []


@pytest.mark.parametrize("name", ["audit", "star"])
def test_colours_follow_the_reader(name, opened):
    ink = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    seen = {}
    for colours in ("light", "dark"):
        with opened(name, color_scheme=colours) as found:
            seen[colours] = found.page.evaluate(ink)
            found.page.emulate_media(media="print")
            assert found.page.evaluate(ink) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    assert seen["light"][0] == "rgb(255, 255, 255)"
    assert seen["dark"][0] == "rgb(21, 24, 28)"


def numbers(page, column: int) -> list[float | None]:
    rows = page.locator("#site-table").evaluate(CELLS)
    return [None if row[column][0] is None else float(row[column][0]) for row in rows]


def ordered(values: list[float | None], *, down: bool) -> bool:
    """Numbers in order as numbers, blanks last either way."""
    known = [v for v in values if v is not None]
    return values[: len(known)] == known and known == sorted(known, reverse=down)


@pytest.mark.parametrize("name", ["star", "thousands", "three", "decomposition"])
def test_a_table_is_sorted_by_click(name, opened):
    with opened(name) as found:
        heads = found.page.locator("#site-table thead th")
        before = found.page.locator("#site-table").evaluate(CELLS)
        column = next(
            j
            for j in range(2, heads.count())
            if len({c for c in numbers(found.page, j) if c is not None}) > 3
        )
        for down in (False, True, False):
            heads.nth(column).locator("button").click()
            assert heads.nth(column).get_attribute("aria-sort") == ("descending" if down else "ascending")
            assert found.page.locator("#site-table th[aria-sort]").count() == 1
            assert ordered(numbers(found.page, column), down=down)
        heads.nth(0).locator("button").click()
        assert heads.nth(column).get_attribute("aria-sort") is None
        assert heads.nth(0).get_attribute("aria-sort") == "ascending"
        after = found.page.locator("#site-table").evaluate(CELLS)
        assert sorted(map(str, after)) == sorted(map(str, before))


def test_a_table_is_sorted_by_keyboard(opened):
    with opened("star") as found:
        page = found.page
        page.locator("#site-table thead button").nth(1).focus()
        page.keyboard.press("Tab")
        focus = "document.activeElement.closest('th').cellIndex"
        column = page.evaluate(focus)
        assert column == 2
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        for key, down in (("Enter", False), ("Space", True)):
            page.keyboard.press(key)
            head = page.locator("#site-table thead th").nth(column)
            assert head.get_attribute("aria-sort") == ("descending" if down else "ascending")
            assert ordered(numbers(page, column), down=down)
            assert page.evaluate(focus) == column
        # As text, "-10" would stand between "-1" and "-2".
        values = [v for v in numbers(page, column) if v is not None]
        assert values != sorted(values, key=str, reverse=True)


def test_the_keyboard_gets_everywhere(opened):
    with opened("star", width=390) as found:
        page = found.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.url.endswith("#answer")
        inside = page.locator("#assumption-ii > summary")
        inside.focus()
        page.keyboard.press("Enter")
        assert page.locator("#assumption-ii").get_attribute("open") is not None
        # Only what scrolls is a stop.
        stops = "found => found.map(b => [b.tabIndex === 0, b.scrollWidth > b.clientWidth])"
        pairs = page.eval_on_selector_all(".scroll, .card", stops)
        assert all(a == b for a, b in pairs)
        assert {a for a, _ in pairs} == {True, False}


def test_a_link_to_a_figure_opens_its_finding(opened):
    with opened("star") as found:
        link = found.page.locator("#falsification ~ * a[href^='#figure-']").first
        figure = link.get_attribute("href")
        assert not found.page.locator(figure).is_visible()
        link.click()
        found.page.wait_for_function(f"document.querySelector('{figure}').closest('details').open")
        assert found.page.locator(figure).is_visible()


def test_nothing_moves_for_those_who_ask(opened):
    with (
        opened("star", reduced_motion="reduce") as still,
        opened("star", reduced_motion="no-preference") as moving,
    ):
        how = "getComputedStyle(document.documentElement).scrollBehavior"
        assert (still.page.evaluate(how), moving.page.evaluate(how)) == ("auto", "smooth")


def pdf_pages(data: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", data))


@pytest.mark.parametrize("name", ["star", "three", "audit", "checklist"])
def test_paper_gets_whole_figures_and_no_lonely_heading(name, opened, tmp_path: Path):
    with opened(name, width=PAPER[0], height=PAPER[1]) as found:
        page = found.page
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        # A figure lower than a page that may not be broken is never cut.
        sizes = "all => all.map(f => [f.offsetHeight, f.scrollWidth, getComputedStyle(f).breakInside])"
        for height, width, rule in page.eval_on_selector_all("figure", sizes):
            assert height < PAPER[1]
            assert width <= PAPER[0]
            assert rule == "avoid"
        after = page.eval_on_selector_all(
            "h1, h2, h3, h4, caption, summary", "f => f.map(h => getComputedStyle(h).breakAfter)"
        )
        assert name == "checklist" or set(after) == {"avoid"}
        assert page.locator("nav:visible").count() == 0
        # Nothing is printed beside the paper, and the browser has no reason to shrink what is on it.
        assert page.evaluate("document.documentElement.scrollWidth") <= PAPER[0]
        tall = page.evaluate("document.documentElement.scrollHeight")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        margin = dict.fromkeys(("top", "bottom", "left", "right"), "15mm")
        data = page.pdf(format="A4", margin=margin)
    count = pdf_pages(data)
    # Keeping figures whole leaves gaps, but nothing is left out.
    assert tall / PAPER[1] <= count + 1
    assert count <= 1.6 * tall / PAPER[1] + 2


def test_folded_parts_fold_again_after_printing(opened):
    with opened("star") as found:
        found.page.evaluate("document.getElementById('assumption-iv').open = true")
        before = ids(found.page, "details[open]")
        found.page.evaluate("dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint'))")
        assert ids(found.page, "details[open]") == before == ["assumption-iv"]


def test_without_scripts_everything_is_there(opened):
    with opened("star", java_script_enabled=False) as found:
        assert found.page.locator("#site-table tbody tr").count() == 79
        found.page.locator("#assumption-ii > summary").click()
        assert found.page.locator("#assumption-ii blockquote p").first.is_visible()


def test_a_long_argument_keeps_its_paragraphs_and_an_absent_one_is_named(opened):
    with opened("star") as found:
        quoted = found.page.locator("#assumption-ii blockquote p")
        assert quoted.count() == 10
        assert quoted.nth(9).text_content().startswith("10. Whoever")
        assert "The author gives no argument." in found.page.locator("#assumption-i").text_content()
        assert found.page.locator("#assumption-ix blockquote p").count() == 1


def test_sets_without_ends_are_said_and_drawn(opened):
    with opened("unbounded") as found:
        assert "do not bound this effect" in found.page.locator(".answer").text_content()
        assert "any value (not bounded)" in found.page.locator("#headline ~ .scroll").first.text_content()
    with opened("disjoint") as found:
        assert (
            "-3.000 to -2.000, or 0 to 1.000"
            in found.page.locator("#headline ~ .scroll").first.text_content()
        )
        said = found.page.locator("#estimates ~ .scroll").text_content()
        for words in ("-2.000 or less, or 1.000 or more", "0.2500 or more", "empty"):
            assert words in said


def test_labels_that_mean_harm_stay_text(opened):
    for name in ("hostile", "decomposition_hostile"):
        with opened(name) as found:
            page = found.page
            assert page.locator("script").count() == 1
            assert page.locator("main b, [onload], [onerror], main script").count() == 0
            assert "<script>alert(1)</script>" in page.locator("main").text_content()
            # A line from right to left does so by itself; the table stays from left to right.
            if name == "hostile":
                directions = page.eval_on_selector_all(
                    "#site-table tbody th", "f => f.map(h => getComputedStyle(h).direction)"
                )
                assert set(directions) == {"ltr", "rtl"}


def test_headings_go_down_in_steps_of_one(opened):
    for name in (*KINDS, "five"):
        with opened(name) as found:
            levels = found.page.eval_on_selector_all(
                "h1, h2, h3, h4", "f => f.map(h => Number(h.tagName[1]))"
            )
            assert levels.count(1) == 1
            assert all(b - a <= 1 for a, b in pairwise(levels))


def test_hashes_of_the_files_are_shown(opened):
    with opened("star") as found:
        seals = found.page.locator("#versions ~ dl").text_content()
        assert "study.toml" in seals
        assert "ab" * 32 in seals
        assert "seed 0, 199 draws" in found.page.locator("#versions ~ p").nth(1).text_content()
