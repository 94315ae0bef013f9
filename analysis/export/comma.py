"""CSV: every table of every run as it is, for spreadsheets and other languages.

Lists (`stall_s`) become numbers separated by spaces; a missing time is empty.
"""

from __future__ import annotations

from pathlib import Path

from analysis.columns import read_table
from analysis.reading import RunDirectory
from analysis.whole import whole

TIMES = {"requests": "arrival_s", "steps": "start_s", "blocks": "time_s", "events": "time_s"}
"""Which column of each table the window applies to."""


def write(
    directory: RunDirectory, folder: Path, labels: list[str], window: tuple[float, float], _note: object
) -> list[Path]:
    """Write `<run>.<table>.csv` for every run of the labels: the rows whose time lies in the window."""
    import pyarrow as pa  # noqa: PLC0415  (start-up time)
    import pyarrow.compute as pc  # noqa: PLC0415  (start-up time)
    import pyarrow.csv as pcsv  # noqa: PLC0415  (start-up time)

    written = []
    for name, path in _tables(directory, labels).items():
        table = read_table(path)
        when = table[TIMES[path.stem]]
        table = table.filter(pc.and_(pc.greater_equal(when, window[0]), pc.less_equal(when, window[1])))
        for place, field in enumerate(table.schema):
            if pa.types.is_list(field.type):
                texts = pc.cast(table[field.name], pa.list_(pa.string()))
                table = table.set_column(place, field.name, pc.binary_join(texts, " "))
            elif pa.types.is_dictionary(field.type):
                table = table.set_column(place, field.name, table[field.name].cast(pa.string()))
            elif pa.types.is_floating(field.type):
                absent = pc.is_nan(table[field.name])
                table = table.set_column(
                    place, field.name, pc.if_else(absent, pa.scalar(None, field.type), table[field.name])
                )
        with whole(folder / name) as part:
            pcsv.write_csv(table, part)
        written.append(folder / name)
    return written


def files(directory: RunDirectory, labels: list[str]) -> list[str]:
    """Names of the files that are written."""
    return list(_tables(directory, labels))


def _tables(directory: RunDirectory, labels: list[str]) -> dict[str, Path]:
    """Return the table that each file is made of."""
    return {
        f"{str(run.facts['dir']).replace('/', '.')}.{path.stem}.csv": path
        for run in directory.runs
        if run.label in labels
        for path in sorted(run.path.glob("*.parquet"))
        if path.stem in TIMES
    }
