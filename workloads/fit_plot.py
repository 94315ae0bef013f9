"""A page that shows a trace beside its fit: distributions, gaps, and arrivals over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workloads.fit import Check, Fit, check, per_minute
from workloads.generate import generate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workloads.requests import Floats, Ints, Requests

POINTS = 400
"""Points of a line: quantiles at even steps, so that no request of the trace can be read off."""
TICKS = ",.12~r"
"""Numbers on every axis: 0.05, 2,500, 10,000."""
COLOURS = {"trace": "#0072B2", "fitted": "#D55E00"}
"""Okabe and Ito's blue and vermilion, told apart by the colour-blind."""


def page(requests: Requests, fitted: Fit, title: str) -> str:
    """Return one HTML page that needs no network."""
    figure = plot(requests, fitted)
    figure.update_layout(title=title)
    page: str = figure.to_html(include_plotlyjs=True, full_html=True)
    return page


def plot(requests: Requests, fitted: Fit) -> go.Figure:
    """Draw trace and fit: CDFs of prompts, outputs and gaps, arrivals a minute, and the table of the tests."""
    made = generate(fitted.source)
    figure = make_subplots(
        rows=3,
        cols=2,
        specs=[[{}, {}], [{}, {}], [{"type": "table", "colspan": 2}, None]],
        subplot_titles=(
            "prompts",
            "outputs",
            "gaps between arrivals",
            "arrivals in each whole minute",
            "Kolmogorov-Smirnov test of the fit: alike where the distance is below the 5 % critical value",
        ),
        row_heights=[0.33, 0.33, 0.34],
    )
    for label, some in (("trace", requests), ("fitted", made)):
        for column, values in ((1, some.prompt_tokens), (2, some.output_tokens)):
            figure.add_trace(_cdf(values, label, shown=column == 1), row=1, col=column)
        figure.add_trace(_cdf(np.diff(some.arrival_s), label, shown=False), row=2, col=1)
        counts = per_minute(some.arrival_s)
        style = _style(label, shown=False) | {"mode": "lines+markers"}  # of a single minute there is no line
        line = go.Scatter(x=np.arange(len(counts)), y=counts, **style)
        figure.add_trace(line, row=2, col=2)
    log, minutes = {"type": "log", "dtick": 1}, len(per_minute(requests.arrival_s))
    for row, column, x, y, more in (
        (1, 1, "prompt tokens", "share of requests", log),
        (1, 2, "output tokens", "share of requests", log),
        (2, 1, "gap, s", "share of gaps", log),
        (2, 2, "minute", "arrivals", {"dtick": max(1, -(-minutes // 8))}),
    ):
        figure.update_xaxes({"title_text": x, "tickformat": TICKS, **more}, row=row, col=column)
        figure.update_yaxes(title_text=y, tickformat=TICKS, rangemode="tozero", row=row, col=column)
    figure.add_trace(_table(check(requests, fitted)), row=3, col=1)
    figure.update_layout(template="plotly_white", height=960)
    return figure


def _style(label: str, *, shown: bool) -> dict[str, object]:
    return {
        "mode": "lines",
        "name": label,
        "legendgroup": label,
        "showlegend": shown,
        "line": {"color": COLOURS[label], "dash": "solid" if label == "trace" else "dot"},
    }


def _cdf(values: Ints | Floats, label: str, *, shown: bool) -> go.Scatter:
    share = np.linspace(0, 1, POINTS)
    quantiles = np.quantile(values, share) if len(values) else np.zeros(POINTS)
    return go.Scatter(x=quantiles.astype(np.float32), y=share.astype(np.float32), **_style(label, shown=shown))


def _table(checks: Sequence[Check]) -> go.Table:
    rows = [
        (
            one.quantity,
            f"{float(f'{one.trace:.4g}'):,.12g}",
            f"{float(f'{one.fitted:.4g}'):,.12g}",
            "" if np.isnan(one.distance) else f"{one.distance:.3f}",
            "" if np.isnan(one.distance) else f"{one.critical:.3f}",
        )
        for one in checks
    ]
    header = ["quantity", "trace", "fitted", "KS distance", "5 % critical value"]
    return go.Table(
        header={"values": header, "align": "left"},
        cells={"align": "left", "values": list(map(list, zip(*rows, strict=True)))},
    )
