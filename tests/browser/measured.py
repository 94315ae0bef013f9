"""Draw what was measured on a GPU beside what is simulated: `python -m tests.browser.measured` in a checkout.

Reads the results of `tests.gpu.timed` and `tests.gpu.curves` in `analysis/results/`, simulates
the same workloads at more rates, and writes `measured.png` there.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from playwright.sync_api import sync_playwright
from plotly.subplots import make_subplots

from analysis.figures import figure
from sim.decode.timed import simulate
from tests.gpu.timed import HEADLINE
from workloads.loader import load

RESULTS = Path(__file__).parents[2] / "analysis" / "results"
DEVICE = "nvidia-h100-80gb-hbm3"
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1100, 640
RATES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
COLOURS = {"Orca (Max)": "#c0504d", "Orca (Pow2)": "#e08b3e", "Orca (Oracle)": "#7f7f7f", "vLLM": "#2c7fb8"}
KERNELS = {"naive": "#c0504d", "flash": "#2c7fb8"}
WAYS = {"recomputed": "#e08b3e", "cached": "#2c7fb8"}


def results(name: str) -> dict[str, Any]:
    """Read the results of the device on which the headline was measured."""
    path = RESULTS / f"{name}_{DEVICE}.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def simulated() -> dict[float, list[dict[str, Any]]]:
    """Simulate the headline at every rate; entries of summary.json by rate."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for rate in RATES:
            workload = load(HEADLINE, [f"requests.arrivals.rate={rate}"])
            out = Path(folder, str(rate))
            simulate(workload, out, workload.costs.calibration, None)
            found[rate] = json.loads((out / "summary.json").read_text(encoding="utf-8"))["runs"]
    return found


def draw(timed: dict[str, Any], curves: dict[str, Any]) -> go.Figure:
    """Draw the paper's figures 12 and 13, naive against flash attention, and a token with and without a K/V cache."""
    entries = simulated()
    titles = (
        "OPT-13B: latency (Fig. 12)",
        "OPT-13B: mean batch at 6 requests/s (Fig. 13)",
        "OPT-13B: attention of one layer, prefill",
        "GPT-2, one sequence: time of a token, with and without a K/V cache",
    )
    picture = make_subplots(2, 2, subplot_titles=titles, horizontal_spacing=0.08, vertical_spacing=0.18)
    measured = [
        (run["label"], float(name.rpartition(" ")[2]), run["measured"])
        for name, piece in timed["pieces"].items()
        if piece["group"] == "sosp23"
        for run in piece["timing"]["runs"]
    ]
    for place, (label, colour) in enumerate(COLOURS.items()):
        line = [
            1e3 * figure(entry, "normalized_latency_s")
            for runs in entries.values()
            for entry in runs
            if entry["allocator"] == label
        ]
        picture.add_scatter(
            x=RATES, y=line, name=label, mode="lines", line={"color": colour, "width": 1.5}, row=1, col=1
        )
        points = [(rate, 1e3 * run["normalized_latency_s"]) for name, rate, run in measured if name == label]
        mark = {"color": colour, "size": 10, "symbol": "circle-open", "line": {"width": 2.5}}
        x, y = zip(*points, strict=True) if points else ((), ())
        picture.add_scatter(x=x, y=y, mode="markers", marker=mark, showlegend=False, row=1, col=1)
        batch = next(figure(entry, "batch_size") for entry in entries[6.0] if entry["allocator"] == label)
        picture.add_bar(
            x=[label], y=[batch], marker={"color": colour, "opacity": 0.35}, width=0.7, showlegend=False, row=1, col=2
        )
        real = [run["batch_size"] for name, rate, run in measured if name == label and rate == 6]
        picture.add_scatter(x=[label] * len(real), y=real, mode="markers", marker=mark, showlegend=False, row=1, col=2)
        text = f"{batch:.1f}" + (f"<br>{real[0]:.1f} real" if real else "")
        picture.add_annotation(
            x=place, y=max([batch, *real]), text=text, showarrow=False, yshift=20, font={"size": 11}, row=1, col=2
        )
    for kernel, colour in KERNELS.items():
        rows = [row for row in curves["attention"]["rows"] if (row["phase"], row["kernel"]) == ("prefill", kernel)]
        add_curve(picture, rows, kernel, colour, 1)
    for way, colour in WAYS.items():
        add_curve(picture, [row for row in curves["cache"]["rows"] if row["way"] == way], way, colour, 2)
    picture.update_xaxes(title="requests a second", row=1, col=1)
    picture.update_xaxes(tickangle=0, tickfont={"size": 10}, row=1, col=2)
    ticks = [10, 20, 50, 100, 200, 500]
    picture.update_yaxes(title="ms per output token, mean", type="log", tickvals=ticks, row=1, col=1)
    picture.update_yaxes(title="sequences", range=[0, 13], row=1, col=2)
    for column in (1, 2):
        picture.update_xaxes(title="tokens", type="log", dtick=1, tickformat=",.12~r", row=2, col=column)
        picture.update_yaxes(title="ms", type="log", dtick=1, tickformat=",.12~r", row=2, col=column)
    picture.update_layout(
        width=WIDTH,
        height=HEIGHT,
        template="plotly_white",
        margin={"l": 60, "r": 12, "t": 36, "b": 84},
        legend={
            "orientation": "h",
            "x": -0.04,
            "y": -0.13,
            "font": {"size": 11},
            "title": {"text": "lines and bars: simulated; circles: measured", "font": {"size": 11}},
        },
        font={"family": "DejaVu Sans, sans-serif", "size": 12},
    )
    picture.update_annotations(selector={"yref": "paper"}, font_size=13)
    return picture


def add_curve(picture: go.Figure, rows: list[dict[str, Any]], name: str, colour: str, column: int) -> None:
    """Add a curve against length to the second row: simulated as a line, measured as circles."""
    lengths = [row["tokens"] for row in rows]
    model, real = ([1e3 * row[which] for row in rows] for which in ("simulated_s", "measured_s"))
    mark = {"color": colour, "size": 8, "symbol": "circle-open", "line": {"width": 2}}
    line = {"color": colour, "width": 1.5}
    picture.add_scatter(x=lengths, y=model, name=name, mode="lines", line=line, row=2, col=column)
    picture.add_scatter(x=lengths, y=real, mode="markers", marker=mark, showlegend=False, row=2, col=column)


def main() -> None:
    """Write `measured.png`."""
    picture = draw(results("timed"), results("curves"))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder, "measured.html")
        page_file.write_text(picture.to_html(include_plotlyjs=True, config={"staticPlot": True}), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH + 16, "height": HEIGHT + 16}, color_scheme="light")
        page.goto(page_file.as_uri())
        page.wait_for_selector(".main-svg")
        page.locator(".js-plotly-plot").screenshot(path=RESULTS / "measured.png")
        browser.close()


if __name__ == "__main__":
    main()
