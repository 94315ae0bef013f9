"""The registry: kinds by name, options as data, and strangers' allocators found by entry point."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from allocators import compiled, registry
from allocators.base import Allocator
from allocators.compiled import is_a
from allocators.docs import class_doc, module_doc
from allocators.errors import AllocatorError
from allocators.grouprows import GroupRows
from allocators.options import BLOCK_SIZE, Option, meant, resolve
from allocators.paged import PagedAllocator
from allocators.plugins import ALLOCATORS, SCHEDULERS, PluginError
from allocators.reserving import RunAllocator
from allocators.rows import SharingRows
from sim.errors import UserError
from sim.schedulers import find_scheduler, schedulers
from sim.setup import prepare
from workloads.loader import load


class Stranger(registry.find("paged")):  # type: ignore[misc] # a class looked up by name
    """A kind of its own."""

    kind = "stranger"


BAD_DEFAULT = """
from allocators.paged import Option, PagedAllocator
class A(PagedAllocator): kind, options = "broken", {"x": Option(int, "one", "a number")}
"""


class Installer:
    """Puts distributions with entry points where Python finds them."""

    def __init__(self, folder: Path, group: str = ALLOCATORS) -> None:
        self.folder, self.group = folder, group

    def __call__(self, name: str, value: str, code: str = "", package: str = "") -> None:
        package = package or name.replace("-", "_")
        info = self.folder / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{self.group}]\n{name} = {value}\n")
        if code:
            (self.folder / f"{value.partition(':')[0]}.py").write_text(code)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    monkeypatch.syspath_prepend(tmp_path)
    return Installer(tmp_path)


def test_a_plug_in_is_found_by_its_entry_point(install: Installer) -> None:
    install("stranger", "tests.test_registry:Stranger")
    assert registry.names()[-1] == "stranger"
    assert registry.kinds()["stranger"].kind == "stranger"
    allocator = registry.create("stranger", num_blocks=4, max_model_len=32, block_size=8)
    assert (allocator.kind, allocator.capacity) == ("stranger", 32)


def test_names_are_listed_without_importing_anything(install: Installer) -> None:
    install("lazy", "kvsim_test_lazy:Lazy", "raise RuntimeError('was imported')")
    assert "lazy" in registry.names()
    assert registry.find("paged").kind == "paged"


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ("kvsim_test_missing:A", "", "cannot be imported: ModuleNotFoundError: No module named 'kvsim_test_missing'"),
        ("kvsim_test_raises:A", "raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line$"),
        ("kvsim_test_lacks:A", "B = 1", "cannot be imported: AttributeError: .*has no attribute 'A'"),
        ("kvsim_test_other:A", "A = 1", "is not a subclass of allocators.base.Allocator"),
        (
            "kvsim_test_abstract:A",
            "from allocators.base import Allocator\nclass A(Allocator): kind = 'broken'",
            "lacks admit, can_grow, check, grow, never, release, usage",
        ),
        pytest.param(
            "kvsim_test_half:A",
            "from allocators.reserving import RunAllocator\nclass A(RunAllocator): kind = 'broken'",
            "lacks reservation",
            marks=pytest.mark.skipif(compiled.active(), reason="a compiled class does not say what is abstract in it"),
        ),
        ("tests.test_registry:Stranger", "", "its kind is 'stranger', not 'broken'"),
        (
            "kvsim_test_options:A",
            "from allocators.paged import PagedAllocator\nclass A(PagedAllocator): kind, options = 'broken', {'x': 1}",
            "option x: it is no Option",
        ),
        (
            "kvsim_test_default:A",
            BAD_DEFAULT,
            "option x: its default must be a whole number",
        ),
    ],
)
def test_a_broken_plug_in_is_one_line_and_troubles_nobody_else(
    install: Installer, value: str, code: str, words: str
) -> None:
    install("broken", value, code)
    with pytest.raises(AllocatorError, match=f"allocator plug-in broken = {value}: .*{words}") as error:
        registry.find("broken")
    assert "\n" not in str(error.value)
    with pytest.warns(RuntimeWarning, match=words):
        kinds = registry.kinds()
    assert "broken" not in kinds
    assert kinds.keys() == registry.BUILT_IN.keys()


def test_a_plug_in_cannot_take_a_built_in_name(install: Installer) -> None:
    install("paged", "tests.test_registry:Stranger")
    with pytest.warns(RuntimeWarning, match="the name belongs to a built-in allocator"):
        kinds = registry.kinds()
    assert kinds["paged"] is registry.find("paged") is registry.BUILT_IN["paged"]


def test_two_plug_ins_cannot_have_one_name(install: Installer) -> None:
    install("stranger", "tests.test_registry:Stranger", package="one")
    install("stranger", "another:Stranger", package="two")
    with pytest.raises(AllocatorError, match="takes the same name"):
        registry.find("stranger")


def test_a_plug_in_that_is_installed_twice_counts_once(install: Installer) -> None:
    install("stranger", "tests.test_registry:Stranger", package="one")
    install("stranger", "tests.test_registry:Stranger", package="two")
    assert registry.find("stranger").kind == "stranger"


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ("kvsim_test_absent:A", "", "cannot be imported: ModuleNotFoundError"),
        ("tests.test_registry:Stranger", "", r"is not a subclass of sim\.engine\.scheduler\.Scheduler"),
        pytest.param(
            "kvsim_test_idle:A",
            "from sim.schedulers import Scheduler\nclass A(Scheduler): kind = 'broken'",
            "lacks plan",
            marks=pytest.mark.skipif(compiled.active(), reason="a compiled class does not say what is abstract in it"),
        ),
        ("sim.schedulers:Orca", "", "its kind is 'orca', not 'broken'"),
    ],
)
def test_a_broken_scheduler_is_one_line_and_troubles_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, code: str, words: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    Installer(tmp_path, SCHEDULERS)("broken", value, code)
    with pytest.raises(PluginError, match=f"scheduler plug-in broken = {value}: .*{words}"):
        find_scheduler("broken")
    with pytest.warns(RuntimeWarning, match=words):
        found = schedulers()
    assert [*found] == ["static", "orca", "vllm-v0", "vllm-v1"]
    text = (
        "name: w\nmodel: llama-3.2-1b\ndevice: {name: h100-80gb, kv_memory_gib: 1}\nengine: {scheduler: broken}\n"
        "requests: {count: 1, arrivals: {kind: batch}, lengths: {kind: fixed, prompt: 1, output: 1}}\n"
        "allocators: [{kind: paged}]\n"
    )
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(UserError, match=f"^scheduler plug-in broken = {value}: .*{words}"):
        prepare(load(tmp_path / "w.yaml"))


def test_a_scheduler_that_nobody_has_is_told_what_was_meant() -> None:
    with pytest.raises(PluginError, match="unknown scheduler 'vllm-v2'"):
        find_scheduler("vllm-v2")
    assert find_scheduler("vllm-v1") is schedulers()["vllm-v1"]


def test_an_unknown_kind_is_told_what_was_meant() -> None:
    with pytest.raises(AllocatorError, match=r"unknown allocator contigous \(did you mean contiguous\?\); known: "):
        registry.find("contigous")


def test_options_take_facts_of_the_model_where_nothing_is_said() -> None:
    options = {"bytes": Option(int, 7, "bytes of a token", fact="token_bytes"), "block_size": BLOCK_SIZE}
    assert resolve("x", options, {}, {}) == {"bytes": 7, "block_size": 16}
    assert resolve("x", options, {}, {"token_bytes": 9}) == {"bytes": 9, "block_size": 16}
    assert resolve("x", options, {"bytes": 8}, {"token_bytes": 9}) == {"bytes": 8, "block_size": 16}


@pytest.mark.parametrize(
    ("option", "value", "fault"),
    [
        (Option(int, 1, ""), 2, None),
        (Option(int, 1, ""), 2.0, "must be a whole number"),
        (Option(int, 1, ""), True, "must be a whole number"),
        (Option(int, 1, "", minimum=1, maximum=9), 0, "must be at least 1"),
        (Option(int, 1, "", minimum=1, maximum=9), 10, "must be at most 9"),
        (Option(int, 1, "", minimum=1, maximum=9), 9, None),
        (Option(int, 1, "", minimum=1, maximum=9), 1, None),
        (Option(float, 1.0, ""), 2, None),
        (Option(float, 1.0, ""), float("nan"), "must be a finite number"),
        (Option(float, 1.0, ""), "2", "must be a number"),
        (Option(bool, False, ""), True, None),
        (Option(bool, False, ""), 1, "must be true or false"),
        (Option(str, "a", "", choices=("buddy", "first-fit")), "bddy", r"one of buddy, first-fit \(did you mean buddy"),
        (Option(int, None, ""), None, None),
        (Option(int, 1, ""), None, "must be a whole number"),
    ],
)
def test_values_are_checked_against_their_option(option: Option, value: object, fault: str | None) -> None:
    if fault is None:
        assert resolve("x", {"y": option}, {"y": value}, {}) == {"y": value}
    else:
        with pytest.raises(ValueError, match=rf"x\.y: .*{fault}.*, got"):
            resolve("x", {"y": option}, {"y": value}, {})


def test_nothing_is_guessed_where_nothing_is_near() -> None:
    assert meant("zzz", ["paged"]) == ""


def test_what_begins_so_is_guessed_before_what_looks_alike() -> None:
    known = ["page_kib", "pages", "paged", "paging", "cage"]
    assert meant("PAGE", known) == " (did you mean page_kib or pages or paged?)"
    assert meant("pagng", known) == " (did you mean paging?)"


def test_every_built_in_kind_says_what_it_is() -> None:
    for kind, cls in registry.BUILT_IN.items():
        assert cls.kind == kind
        assert not inspect.isabstract(cls)
        assert class_doc(cls)
        assert module_doc(cls)
        assert all(option.doc and "\n" not in option.doc for option in cls.options.values())


@pytest.mark.skipif(compiled.active(), reason="a compiled class does not say what is abstract in it")
def test_the_verbs_that_a_plug_in_must_have_are_those_that_are_abstract() -> None:
    assert set(registry.REQUIRED) == Allocator.__abstractmethods__


def test_an_allocator_is_of_its_own_classes_alone() -> None:
    """Compiled or not: abstract classes that are compiled share a cache, in which `isinstance` looks first."""
    paged = PagedAllocator(8, 4, 16)
    assert isinstance(paged, Allocator), "now the cache has it"
    assert is_a(paged, SharingRows)
    assert not is_a(paged, GroupRows)
    assert not is_a(paged, RunAllocator)
