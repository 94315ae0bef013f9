"""Versions are those that the packages' metadata tell."""

from importlib.metadata import version

from sim.versions import versions


def test_versions_are_those_of_the_metadata() -> None:
    packages = ("numpy", "simpy", "pyarrow", "pydantic", "rich", "pytest")
    found = versions([*packages, "no-such-package"])
    assert {name: found[name] for name in packages} == {name: version(name) for name in packages}
    assert "no-such-package" not in found
