"""The pages of a sweep, a capacity and an advice in Chromium."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.planner.page import write_page
from sim.cli import main
from sim.planner.backends import make
from sim.planner.capacity import capacity
from sim.planner.grid import Base
from sim.planner.slo import Objective
from sim.planner.sweep import sweep
from tests.browser.conftest import Opened, short_ticks

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=alert(1)>"
SMALL = f"""\
name: "{HOSTILE}"
model: tiny-llama
device: {{name: h100-80gb, kv_memory_gib: 0.0003}}
engine: {{max_num_seqs: 8, max_model_len: 256}}
requests: {{count: 40, arrivals: {{kind: poisson, rate: 1000}}, lengths: {{kind: fixed, prompt: 24, output: 16}}}}
allocators:
  - {{kind: preallocated}}
  - {{kind: paged, label: "{HOSTILE}"}}
slo: {{ttft_s: 0.01}}
"""
CURVES = "document.getElementById('curves').data"
WIDTHS = [(1280, "light"), (390, "dark")]


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind."""
    folder = tmp_path_factory.mktemp("planner")
    file = folder / "small.yaml"
    file.write_text(SMALL, encoding="utf-8")
    base = Base(str(file), ["repeat=2"])
    over = base.axes(["requests.arrivals.rate=500,2000", "allocators.paged.block_size=4,16"])
    sweep(base, over, folder / "sweep", make())
    capacity(
        base,
        (),
        (Objective("goodput", 0.5), Objective("ttft_s", 0.002)),
        folder / "capacity",
        make(),
        repeats=2,
        precision=0.5,
    )
    line = ["advise", str(file), "--budget", "20", "--repeat", "2", "--quiet", "--out", str(folder / "advice")]
    assert main(line) == 0
    return {name: write_page(folder / name) for name in ("sweep", "capacity", "advice")}


@pytest.mark.parametrize("kind", ["sweep", "capacity", "advice"])
@pytest.mark.parametrize("opened", WIDTHS, indirect=True, ids=str)
def test_a_page_draws_itself_at_every_size_and_theme(kind: str, opened: Opened, pages: dict[str, Path]) -> None:
    page = opened.go(pages[kind])
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]  # set above
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator("img").count() == 0
    assert page.locator(".finding").count() >= 2
    assert page.locator(".js-plotly-plot").count() == {"sweep": 5, "capacity": 2, "advice": 2}[kind]
    drawn = page.locator(
        ".js-plotly-plot .scatterlayer .point, .js-plotly-plot .bars .point, .js-plotly-plot .hm image"
    )
    assert drawn.count() >= {"sweep": 10, "capacity": 8, "advice": 2}[kind]
    cut = page.evaluate(
        """[...document.querySelectorAll('h1, h2, h3, p, button, .verdict')]
            .filter(node => node.offsetParent && node.scrollWidth > node.clientWidth + 1)
            .filter(node => getComputedStyle(node).display !== 'inline').map(node => node.textContent)"""
    )
    assert cut == []


@pytest.mark.parametrize("kind", ["sweep", "capacity", "advice"])
def test_every_axis_says_what_it_shows_and_its_ticks_are_written_alike(
    kind: str, opened: Opened, pages: dict[str, Path]
) -> None:
    page = opened.go(pages[kind])
    titles = page.evaluate(
        """[...document.querySelectorAll('.js-plotly-plot')].flatMap(({layout}) => [layout.xaxis, layout.yaxis]
            .filter(axis => !axis.ticktext).map(axis => axis.title.text))"""
    )
    assert titles
    assert all(titles)
    assert short_ticks(page) == []


def test_a_share_is_drawn_between_nothing_and_everything(opened: Opened, pages: dict[str, Path]) -> None:
    """A limit beside values that differ by a factor of 50 was once put at ten to the power of itself."""
    before, opening, rest = pages["capacity"].read_text(encoding="utf-8").partition('id="facts">')
    text, closing, after = rest.partition("</script>")
    facts = json.loads(text)
    for curve in facts["curves"]:
        for place, point in enumerate(curve["points"]):
            point["figures"]["goodput"] = [1.0 if place else 0.001, None, None]
    changed = pages["capacity"].with_name("changed.html")
    changed.write_text(before + opening + json.dumps(facts) + closing + after, encoding="utf-8")
    page = opened.go(changed)
    axis = "(({type, range}) => [type, range])(document.getElementById('curves').layout.yaxis)"
    page.locator("#figure").select_option("goodput")
    page.wait_for_function(f"() => JSON.stringify({axis}[1]) === '[-2,105]'")
    assert page.evaluate(axis)[0] == "linear"
    assert "SLO 50 %" in page.locator("#curves .annotation").all_text_contents()
    label = page.locator("#curves .annotation text").first.evaluate("node => getComputedStyle(node).fill")
    assert label == page.evaluate("getComputedStyle(document.body).color"), "as easy to read as any text"


@pytest.mark.parametrize("kind", ["sweep", "capacity", "advice"])
@pytest.mark.parametrize("opened", [(390, "light")], indirect=True, ids=str)
def test_every_cell_of_a_table_that_has_become_a_card_says_what_it_is(
    kind: str, opened: Opened, pages: dict[str, Path]
) -> None:
    cells = "[...document.querySelectorAll('.glance td[data-head]')].filter((cell) => cell.textContent.trim())"
    said = opened.go(pages[kind]).evaluate(f"{cells}.map((cell) => getComputedStyle(cell, '::before').content)")
    assert said
    assert "none" not in said


def test_figure_and_axis_of_a_sweep_are_chosen(opened: Opened, pages: dict[str, Path]) -> None:
    page = opened.go(pages["sweep"])
    titles = "[...document.querySelectorAll('#curves .ytitle, #curves .xtitle')].map(node => node.textContent)"
    assert page.evaluate(titles) == ["rate (arrivals/s)", "Throughput (requests/s)"]
    page.locator("#figure").select_option("ttft_s.p99")
    page.locator("#x").select_option("1")
    page.wait_for_function("() => document.querySelector('#curves .xtitle').textContent === 'block_size (token slots)'")
    assert page.evaluate(titles) == ["block_size (token slots)", "Time to first token, p99 (s)"]
    assert page.locator("#maps figure").count() == 2
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_capacity_is_marked_where_the_table_has_it(opened: Opened, pages: dict[str, Path]) -> None:
    page = opened.go(pages["capacity"])
    stars = page.evaluate(f"{CURVES}.filter(trace => trace.marker.symbol === 'star').map(trace => trace.x[0])")
    shown = page.locator("#h-capacity ~ .scroll tbody tr td:nth-child(2)").all_inner_texts()
    numbers = [float(text.split("±")[0].replace(",", "")) for text in shown]
    assert stars == pytest.approx(numbers, rel=0.01)


def test_a_star_stands_at_the_figure_that_was_measured_there_whatever_is_drawn(
    opened: Opened, pages: dict[str, Path]
) -> None:
    page = opened.go(pages["capacity"])
    summary = json.loads(pages["capacity"].with_name("summary.json").read_text(encoding="utf-8"))
    for name, scale in (("goodput", 100), ("ttft_s", 1), ("batch_size", 1)):  # the SLO's figures, and another
        page.locator("#figure").select_option(name)
        stars = f"{CURVES}.filter(({{marker}}) => marker.symbol === 'star').map(({{y}}) => y[0])"
        expected = [scale * one["figures"][name]["mean"] for one in summary["answers"]]
        page.wait_for_function(f"() => Math.abs({stars}[0] - {expected[0]}) < 1e-6")
        assert page.evaluate(stars) == pytest.approx(expected)


def test_curves_far_above_every_limit_are_drawn_all_the_same(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL, encoding="utf-8")
    capacity(Base(str(file)), (), (Objective("ttft_s", 1e-6),), tmp_path / "none", make(), repeats=2, precision=1)
    page = opened.go(write_page(tmp_path / "none"))
    axes = page.evaluate("(({xaxis, yaxis}) => [xaxis.range, yaxis.range])(document.getElementById('curves').layout)")
    points = page.evaluate(f"{CURVES}.flatMap(({{x, y}}) => x.map((x, at) => [x, y[at]]))")
    assert points
    assert all(low <= value <= high for point in points for value, (low, high) in zip(point, axes, strict=True))


@pytest.mark.parametrize("opened", WIDTHS, indirect=True, ids=str)
def test_long_labels_are_cut_at_their_end_and_make_no_page_wider(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL.replace(HOSTILE, "first_" + 74 * "x"), encoding="utf-8")
    base = Base(str(file))
    sweep(base, base.axes(["engine.max_num_seqs=4,8"]), tmp_path / "sweep", make())
    capacity(base, (), (Objective("ttft_s", 0.002),), tmp_path / "capacity", make(), repeats=1, precision=1)
    for kind, plot in (("sweep", "#maps"), ("capacity", "#capacities")):
        page = opened.go(write_page(tmp_path / kind))
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]  # set above
        ticks = page.locator(f"{plot} .ytick text")
        assert any(text.startswith("first_") and text.endswith("…") for text in ticks.all_text_contents())
        edge = page.locator(f"{plot} svg.main-svg").first.bounding_box()
        boxes = [tick.bounding_box() for tick in ticks.all()]
        assert edge
        assert all(box and box["x"] >= edge["x"] for box in boxes)


@pytest.mark.parametrize("opened", WIDTHS, indirect=True, ids=str)
def test_titles_of_axes_and_long_labels_leave_each_other_room(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL, encoding="utf-8")
    base = Base(str(file))
    lengths = ",".join(f"{{kind: fixed, prompt: {prompt}, output: 16}}" for prompt in (8, 16, 24))
    sweep(base, base.axes([f"requests.lengths={lengths}", "model=tiny-llama,tiny-gemma2"]), tmp_path / "x", make())
    page = opened.go(write_page(tmp_path / "x"))
    overlaps = page.evaluate(
        """[...document.querySelectorAll('.js-plotly-plot')].flatMap((plot) => ['x', 'y'].flatMap((axis) => {
            const title = plot.querySelector(`.${axis}title`)?.getBoundingClientRect();
            const frame = plot.querySelector('svg.main-svg').getBoundingClientRect();
            return [...plot.querySelectorAll(`.${axis}tick text`)].filter((tick) => {
                const box = tick.getBoundingClientRect();
                return box.left < frame.left || box.bottom > frame.bottom || (title && box.left < title.right
                    && title.left < box.right && box.top < title.bottom && title.top < box.bottom);
            }).map((tick) => tick.textContent);
        }))"""
    )
    assert overlaps == []
    ticks = page.evaluate("document.getElementById('curves').layout.xaxis.ticktext")
    assert len(set(ticks)) == 3, "told apart, however short"


def test_lines_join_numbers_only(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL, encoding="utf-8")
    base = Base(str(file))
    over = base.axes(["engine.scheduler=orca,vllm-v1,vllm-v0", "requests.arrivals.rate=500,2000"])
    sweep(base, over, tmp_path / "words", make())
    page = opened.go(write_page(tmp_path / "words"))
    modes = f"{CURVES}.map(({{mode}}) => mode)"
    assert page.evaluate(modes) == ["markers"] * 2
    axis = "document.getElementById('curves').layout.xaxis"
    assert page.evaluate(f"{axis}.ticktext") == ["orca", "vllm-v1", "vllm-v0"]
    places = page.evaluate(f"{CURVES}.map(({{x}}) => x)")
    assert len({at for mine in places for at in mine}) == 6  # none hides behind another
    page.locator("#x").select_option("1")
    page.wait_for_function(f"() => {modes}[0] === 'lines+markers'")
    assert page.evaluate(modes) == ["lines+markers"] * 2


@pytest.mark.parametrize("opened", WIDTHS, indirect=True, ids=str)
def test_changes_of_one_setting_are_told_apart_however_narrow(opened: Opened, pages: dict[str, Path]) -> None:
    page = opened.go(pages["advice"])
    names = page.evaluate("document.getElementById('latency').layout.yaxis.ticktext")
    assert len(set(names)) == len(names) > 2


def test_a_sweep_opens_where_its_cells_differ_most(opened: Opened, tmp_path: Path) -> None:
    """At the first of its rates all allocators did the same, and so the page opened with one flat line."""
    file = tmp_path / "small.yaml"
    file.write_text(SMALL, encoding="utf-8")
    base = Base(str(file))
    sweep(
        base,
        base.axes(["allocators.paged.block_size=4,16", "requests.arrivals.rate=5,2000"]),
        tmp_path / "cells",
        make(),
    )
    page = opened.go(write_page(tmp_path / "cells"))
    assert page.locator("#at-1").input_value() == "1"


def test_what_a_figure_is_shown_at_is_chosen_by_keyboard(opened: Opened, pages: dict[str, Path]) -> None:
    page = opened.go(pages["sweep"])
    page.locator("#at-1").focus()
    for key, value in (("ArrowDown", "1"), ("ArrowUp", "0")):
        was = page.locator("#at-1").element_handle()
        page.keyboard.press(key)
        page.wait_for_function("was => !was.isConnected", arg=was)  # it was made anew
        assert page.evaluate("document.activeElement.id") == "at-1"
        assert page.locator("#at-1").input_value() == value


@pytest.mark.parametrize("kind", ["sweep", "capacity"])
def test_paging_has_the_colour_that_it_has_on_the_page_of_a_run(
    kind: str, opened: Opened, pages: dict[str, Path]
) -> None:
    page = opened.go(pages[kind])
    colours = page.evaluate(f"{CURVES}.filter(({{mode}}) => mode !== 'markers').map(({{line}}) => line.color)")
    blue = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--live').trim()")
    assert colours[1] == blue
    assert colours[0] != blue


def test_tables_are_put_in_the_order_of_a_column(opened: Opened, pages: dict[str, Path]) -> None:
    page = opened.go(pages["sweep"])
    column = page.locator(".cellstable thead th").all_inner_texts().index("ms/token mean")
    cells = page.locator(f".cellstable tbody tr td:nth-child({column + 1})")
    came = [float(text.split()[0]) for text in cells.all_inner_texts()]
    head = page.locator(".cellstable thead th").nth(column)
    for order in (sorted(came), sorted(came, reverse=True), came):
        head.click()
        assert [float(text.split()[0]) for text in cells.all_inner_texts()] == order
    head.focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"


def test_an_advice_without_effect_says_so_instead_of_empty_axes(opened: Opened, pages: dict[str, Path]) -> None:
    before, opening, rest = pages["advice"].read_text(encoding="utf-8").partition('id="facts">')
    text, closing, after = rest.partition("</script>")
    facts = json.loads(text)
    assert any(one["change"].startswith("(memory bandwidth") for one in facts["changes"])
    for one in facts["changes"]:
        one["effect"]["tells"] = "none"
    changed = pages["advice"].with_name("changed.html")
    changed.write_text(before + opening + json.dumps(facts) + closing + after, encoding="utf-8")
    page = opened.go(changed)
    assert page.locator("#latency").inner_text() == "Nothing that was tried makes a difference to any request."
    assert page.locator("#latency .js-plotly-plot, #latency svg").count() == 0
