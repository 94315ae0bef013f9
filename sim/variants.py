"""Running the variants of a workload: a run directory for each, and a list of them.

OUT/variants.json     {"schema": 1, "name", "remarks", "variants": [{"label", "dir"}]}
OUT/<label>/          a run directory
OUT/index.html        the page that lists them, written when all are done
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.documents import SCHEMA_VERSION
from analysis.reading import INDEX, VARIANTS
from analysis.variants import Variants
from analysis.written import MANIFEST
from sim.errors import UserError, of_variant
from sim.results.claims import ANOTHER, is_empty
from sim.results.folders import demand_folders, folder_name
from sim.results.rundir import write_json
from sim.runner import claim, demand_free, run
from sim.setup import prepare_variants

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sim.serve import Progress
    from sim.setup import Setup
    from workloads.schema import Workload


def run_variants(
    workload: Workload,
    out: Path,
    *,
    base: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    resume: bool = False,
    force: bool = False,
) -> Variants:
    """Run every variant of a workload through every allocator.

    Args:
        workload: one that has variants.
        out: folder of the run directories; made if it is not there.
        base: folder that relative file names in the workload start from.
        progress: called now and then; labels begin with that of the variant.
        resume: keep the runs that are complete, if they are of the same workload.
        force: runs of another workload in `out` give way.

    Returns:
        Their run directories, with the columns that were read for the summaries.

    Raises:
        UserError: a variant cannot run, or `out` holds something else.

    """
    demand_folders((variant.label for variant in workload.variants), "variants")
    folders = {variant.label: folder_name(variant.label) for variant in workload.variants}
    setups = prepare_variants(workload, base)
    demand_variants(setups)
    if (out / MANIFEST).exists():
        raise UserError(f"{out}: holds results without variants; {ANOTHER}")
    if not (out / VARIANTS).exists() and not is_empty(out, VARIANTS):
        raise UserError(f"{out}: holds other files and no {VARIANTS}; give an empty or a new directory")
    if not force:  # before anything is removed
        for label, setup in setups.items():
            demand_free(setup, out / folders[label], resume=resume)
    out.mkdir(parents=True, exist_ok=True)
    write_json(
        out / VARIANTS,
        {
            "schema": SCHEMA_VERSION,
            "name": workload.name,
            "remarks": list(workload.remarks),
            "variants": [{"label": label, "dir": folder} for label, folder in folders.items()],
        },
    )
    (out / INDEX).unlink(missing_ok=True)  # of what was there before
    if not resume:  # remove all first: runs of an earlier file would look finished when this is resumed
        for label, setup in setups.items():
            claim(setup, out / folders[label])
    runs = {}
    for label, setup in setups.items():
        told = _named(label, progress)
        with of_variant(label):
            runs[label] = run(setup.workload, out / folders[label], base=base, progress=told, resume=True, force=force)
    return Variants(workload.name, list(workload.remarks), runs)


def demand_variants(setups: Mapping[str, Setup]) -> None:
    """Find what else keeps a variant from running before any of them runs; a source that several share is read once.

    Args:
        setups: of all variants, by label.

    Raises:
        VariantError: labels of a variant would share a folder, its trace or a data file is bad, or no request arrives.

    """
    sources = set()
    for label, setup in setups.items():
        source = setup.workload.requests.model_dump_json()
        with of_variant(label):
            demand_folders((case.label for case in setup.cases), "allocators")
            if source not in sources:
                setup.requests()
        sources.add(source)


def _named(variant: str, progress: Callable[[Progress], None] | None) -> Callable[[Progress], None] | None:
    if progress is None:
        return None
    return lambda come: progress(come._replace(label=f"{variant}: {come.label}"))
