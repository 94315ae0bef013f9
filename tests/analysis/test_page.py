"""What the page shows, before any browser: reductions that must not lie."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.errors import RunDirectoryError
from analysis.numbers import short
from analysis.page.document import document
from analysis.pages import write_index, write_page
from analysis.reading import open_directory
from analysis.report import embed, render, subtitle, write_joint_report, write_report
from analysis.together import together
from tests.analysis.synthetic import write_directory


def test_the_page_is_one_file_that_asks_for_nothing(toy: Path) -> None:
    text = b"".join(render(open_directory(toy))).decode()
    assert "default-src 'none'" in text
    assert "plotly.js v" in text
    assert len(text) < 8_000_000
    head = text[: text.index('id="plotly"')] + text[text.rindex("</script>") :]
    assert "http://" not in head.replace("http-equiv", "")
    assert "src=" not in head.replace("default-src", "").replace("script-src", "").replace("style-src", "")


def facts_of(text: str) -> Any:
    start = text.index('id="facts">') + len('id="facts">')
    return json.loads(text[start : text.index("</script>", start)])


HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>{{7*7}}'


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    path = write_directory(
        tmp_path / "run", count=10, kinds=("paged", "preallocated"), labels=(HOSTILE, "<b>b</b>"), name=HOSTILE
    )
    text = b"".join(render(open_directory(path))).decode()
    assert "<img src=x" not in text
    assert "<script>document.title" not in text
    assert "&lt;img src=x" in text
    assert facts_of(text)["columns"][0]["label"] == HOSTILE


def test_embedded_json_cannot_close_its_element() -> None:
    assert "<" not in embed({"a": "</script>"})
    assert json.loads(embed({"a": "</script>&"})) == {"a": "</script>&"}


def test_joined_directories_show_one_allocator_from_each(toy: Path, repeated: Path, tmp_path: Path) -> None:
    out = write_joint_report([toy, repeated], tmp_path / "joint.html")
    text = out.read_text()
    facts = facts_of(text)
    labels = [column["label"] for column in facts["columns"]]
    assert labels[:3] == ["preallocated (run)", "paged (run)", "ideal (run)"]
    assert [labels[index] for index in facts["pair"]] == ["paged (run)", "paged (repeated)"]
    with pytest.raises(RunDirectoryError, match="two directories are called run"):
        write_joint_report([toy, toy], tmp_path / "joint.html")


def test_joined_directories_are_each_held_against_their_own_bound(toy: Path, tmp_path: Path) -> None:
    other = write_directory(tmp_path / "large", num_blocks=256)
    page = document(together([open_directory(toy), open_directory(other)]))
    assert [row["batch_of_ideal"] for row in page["table"] if row["kind"] == "ideal"] == pytest.approx([100, 100])
    alone = [row["batch_of_ideal"] for path in (toy, other) for row in document(open_directory(path))["table"]]
    assert [row["batch_of_ideal"] for row in page["table"]] == alone
    assert [row["ideal"] for row in page["facts"]["bars"][0]["rows"]] == alone


def test_joined_directories_of_other_requests_are_not_compared_one_by_one(toy: Path, tmp_path: Path) -> None:
    other = write_directory(tmp_path / "other", count=60, rate=9, seed=1, name="evening")
    both = together([open_directory(toy), open_directory(other)])
    page = document(both)
    draw = [column["draw"] for column in page["facts"]["columns"]]
    assert draw == [0, 0, 0, 1, 1, 1]
    assert {tuple(draw[int(index)] for index in pair.split(",")) for pair in page["facts"]["divergences"]} == {
        (0, 0),
        (1, 1),
    }
    assert any("did not serve the same requests" in found.text for found in page["findings"])
    told = subtitle(both)
    assert both.name == "toy beside evening"
    assert "80 requests beside 60 requests" in told
    assert told[-1] == "seed 0 beside seed 1"


def test_joined_directories_name_each_device_with_its_pool(toy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(toy, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["device"]["name"] = "h200"
    for run in manifest["runs"]:
        run["num_blocks"] *= 2
    (other / "manifest.json").write_text(json.dumps(manifest))
    alone = [subtitle(open_directory(path)) for path in (toy, other)]
    joint = subtitle(together([open_directory(path) for path in (toy, other)]))
    assert joint[1:3] == [f"{one} beside {two}" for one, two in zip(*alone, strict=True) if one != two]
    assert len(joint) == len(alone[0]) + 1
    shutil.copytree(toy, tmp_path / "same")
    assert subtitle(together([open_directory(path) for path in (toy, tmp_path / "same")]))[1:] == alone[0]


def test_a_pool_counted_in_parts_of_a_token_is_the_same_pool(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy, tmp_path / "toy")
    path = tmp_path / "toy" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["model"]["kv_bytes_per_token"] = 131072
    run = manifest["runs"][1]
    run |= {
        "capacity": 6 * run["capacity"],
        "num_blocks": 6 * run["num_blocks"],
        "block_bytes": run["block_bytes"] // 6,
    }
    path.write_text(json.dumps(manifest))
    told = write_report(tmp_path / "toy").read_text()
    tokens = manifest["runs"][0]["capacity"]
    assert f"GiB, {tokens:,} token slots" in told
    assert "From the same pool" in told
    run["num_blocks"] //= 2
    path.write_text(json.dumps(manifest))
    assert "From the same pool" not in write_report(tmp_path / "toy").read_text()


def test_the_index_lists_runs_and_links_to_their_pages(toy: Path, repeated: Path, tmp_path: Path) -> None:
    write_report(toy)
    text = write_index([toy, repeated], tmp_path / "index.html").read_text()
    link = re.findall(r'<a href="([^"]+)">toy</a>', text)
    assert (tmp_path / link[0]).resolve() == (toy / "report.html").resolve()
    assert "no page yet" in text
    assert text.count('scope="row"') == 6


def test_requests_a_second_are_told_with_how_many_came_and_when_it_was_steady(toy: Path) -> None:
    """A run that waits for its last request finishes fewer a second than came, also if it kept up."""
    entries = open_directory(toy).summary()
    text = write_report(toy).read_text()
    rate = entries[0]["requests"]["offered_rps"]
    assert f"finished, over the whole run, until the last is done; {rate:.2f} arrive a second." in text
    steady = [entry["steady"]["throughput_rps"] for entry in entries if entry["steady"]]
    assert re.findall(r"<small>steady ([\d.]+)</small>", text) == [short(one) for one in steady if one > 0]
    assert steady


def test_no_rate_is_called_steady_that_became_so_too_late_or_is_of_a_closed_loop(toy: Path, tmp_path: Path) -> None:
    """A closed loop that ran dry was told to have a steady rate of 1.5 requests a second; over the run it was 6.9."""
    path = tmp_path / "toy"
    shutil.copytree(toy, path)
    entries = open_directory(toy).summary()
    for changed in ("late", "closed"):
        some = json.loads(json.dumps(entries))
        for entry in some:
            if changed == "closed":
                entry["requests"]["offered_rps"] = None
            else:
                entry["steady"]["from_s"] = 0.74 * entry["steady"]["until_s"]
        (path / "summary.json").write_text(json.dumps({"schema": 1, "runs": some}))
        assert "<small>steady" not in write_report(path).read_text()


def test_a_small_pool_is_told_in_a_unit_of_which_it_has_some(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy, tmp_path / "toy")
    path = tmp_path / "toy" / "manifest.json"
    manifest = json.loads(path.read_text())
    for run in manifest["runs"]:
        run |= {"num_blocks": 157, "block_bytes": 1024}
    path.write_text(json.dumps(manifest))
    assert any(told.startswith("KV pool of 0.153 MiB") for told in subtitle(open_directory(tmp_path / "toy")))


def test_a_workload_with_variants_has_a_page_for_each_and_an_index(toy: Path, repeated: Path, tmp_path: Path) -> None:
    for name, path in (("slow", toy), ("fast", repeated)):
        shutil.copytree(path, tmp_path / name)
    each = [{"label": name, "dir": name} for name in ("slow", "fast")]
    (tmp_path / "variants.json").write_text(
        json.dumps({"schema": 1, "name": "both", "remarks": [], "variants": each}), encoding="utf-8"
    )
    page = write_page(tmp_path)
    assert page == tmp_path / "index.html"
    assert re.findall(r'<a href="([^"]+)">', page.read_text()) == ["slow/report.html", "fast/report.html"]
    assert all((tmp_path / name / "report.html").exists() for name in ("slow", "fast"))
    text = write_index([tmp_path, toy], tmp_path / "all.html").read_text()
    assert '<a href="index.html">both</a>' in text
    assert "variants: slow, fast" in text


def test_a_directory_from_before_a_figure_was_known_has_a_page(toy: Path, tmp_path: Path) -> None:
    """Figures of prices came later: a summary without them shows all else."""
    old = shutil.copytree(toy, tmp_path / "old")
    summary = json.loads((old / "summary.json").read_text(encoding="utf-8"))
    for entry in summary["runs"]:
        del entry["metrics"]["cost_per_million_output_tokens"]
    (old / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    drawn = [bar["name"] for bar in document(open_directory(old))["facts"]["bars"]]
    assert drawn == [bar["name"] for bar in document(open_directory(toy))["facts"]["bars"]]


def test_a_gpu_that_has_no_name_is_the_reader_s_own(toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(toy, folder)
    content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    content |= {"model": {"name": "llama-3.1-8b"}, "device": {"name": "custom"}}
    (folder / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    assert "llama-3.1-8b on a GPU of your own" in write_report(folder).read_text(encoding="utf-8")
