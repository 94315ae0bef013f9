"""The page of an advice: what each change of the settings does."""

from __future__ import annotations

from analysis.planner.advising import good_ones, legend, table_rows, words
from analysis.planner.content import Content, aims
from analysis.planner.reading import Planned


def content(planned: Planned) -> Content:
    """Lay an advice out."""
    summary = planned.summary
    rows = table_rows(summary)
    shown = [*summary["changes"], *([summary["best"]] if len(summary["best"]["knobs"]) > 1 else [])]
    order = {row["change"].removeprefix("together: "): place for place, row in enumerate(rows)}
    basis = "replications" if summary["basis"] == "replications" else "batches of requests"
    return Content(
        "advice.html.j2",
        "advice",
        {
            "keys": [],
            "changes": [
                {"change": one["change"], "effect": one["effect"]}
                for one in sorted(shown, key=lambda one: order[one["change"]])
            ]
            + [
                {"change": f"({one['change']})", "label": f"({one['knobs'][0]})", "effect": one["effect"]}
                for one in summary["hardware"]
            ],
        },
        words(summary),
        [
            str(summary["allocator"]),
            *([aims(planned)] if summary["slo"] else []),
            f"{summary['simulations']} simulations of at most {summary['budget']}",
            f"intervals over {basis}",
        ],
        {"rows": rows, "left_out": summary["left_out"], "good": good_ones(summary), "legend": legend(summary)},
    )
