from __future__ import annotations

import errno
from pathlib import Path

import pytest

from analysis.whole import whole


def test_a_file_gets_its_name_when_all_is_written(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text("old")
    with whole(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def fail_halfway(target: Path, error: BaseException) -> None:
    with whole(target) as part:
        part.write_text("half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("half-way"), OSError("a library's own")])
def test_what_was_there_outlives_a_failure(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "page.html"
    target.write_text("old")
    with pytest.raises(type(error)) as caught:
        fail_halfway(target, error)
    assert caught.value is error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_told_with_the_file_it_was_met_in(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    with pytest.raises(OSError, match="No space left on device") as caught, whole(target):
        raise OSError(errno.ENOSPC, "No space left on device")  # as `write` raises it: without a name
    assert caught.value.filename == str(target)


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, whole(tmp_path / "page.html"):
        (tmp_path / "absent").read_text()
    assert caught.value.filename == str(tmp_path / "absent")


def test_a_folder_that_is_not_there_is_told_of_the_file_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "absent" / "page.html"
    with pytest.raises(FileNotFoundError) as caught, whole(target) as part:
        part.write_text("new")
    assert caught.value.filename == str(target)


def test_what_went_wrong_first_is_told_where_nothing_can_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "page.html.part")

    monkeypatch.setattr(Path, "unlink", refuse)
    target = tmp_path / "page.html"
    with pytest.raises(OSError, match="Read-only") as caught, whole(target) as part:
        raise OSError(errno.EROFS, "Read-only file system", str(part))
    assert caught.value.filename == str(target)


def test_a_link_stays_one_and_a_device_is_no_file_to_replace(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    target.write_text("old")
    link.symlink_to(target)
    with whole(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    with whole(Path("/dev/null")) as part:
        assert part == Path("/dev/null")
