import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.errors import UsageError
from exporter.settings.files import (
    NotRegularError,
    describe_kind,
    find_fault,
    open_regular,
    read_regular,
    read_toml,
)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("out.parquet", None),
        ("--", None),
        ("用" * 85, None),
        ("n" * 255, None),
        ("n" * 255 + "/", None),
        ("/".join(["n" * 200] * 20), None),
        ("n" * 256, "255 bytes"),
        ("用" * 86, "255 bytes"),
        ("n" * 256 + "/x", "folder"),
        ("n/" * 2048, "4,095 bytes"),
        ("a\0b", "NUL"),
        ("\udcff", "UTF-8"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_name_that_no_file_can_have_is_faulty(path: str, fault: str | None) -> None:
    found = find_fault(path)

    assert (found is None) == (fault is None)
    assert fault is None or fault in str(found)


def test_room_is_left_for_the_suffix_of_a_name() -> None:
    assert find_fault("n" * 222, reserved_bytes=33) is None
    assert find_fault("n" * 223, reserved_bytes=33) is not None


def test_url_may_be_longer_than_a_name() -> None:
    assert find_fault("s3://b/" + "n" * 500, is_url=True) is None
    assert find_fault("s3://b/\0", is_url=True) is not None


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "a pipe"),
        (Path.mkdir, "a folder"),
        (Path.touch, "a file"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
    ],
    ids=["pipe", "folder", "file", "device"],
)
def test_kind_is_described(make: Callable[[Path], object], kind: str, tmp_path: Path) -> None:
    make(tmp_path / "it")

    assert describe_kind((tmp_path / "it").stat().st_mode) == kind


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_special_file_is_not_opened(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "it")

    with pytest.raises(NotRegularError, match="not a file"):
        open_regular(tmp_path / "it")


def test_folder_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


def test_name_with_a_nul_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="NUL") as caught:
        open_regular("a\0b")

    assert caught.value.errno == errno.EINVAL


def test_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"x" * 1024)

    assert read_regular(tmp_path / "it", max_bytes=1024) == b"x" * 1024
    with pytest.raises(OSError, match="over 0 KiB"):
        read_regular(tmp_path / "it", max_bytes=1023)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a = [" + b"[" * 50_000, "lists in too many lists"),
        (b"a = " + b"{a=" * 50_000, "lists in too many lists"),
        (b"a." * 50_000 + b"a = 1", "tables in too many tables"),
        (b"a = 9" + b"9" * 5000, "is no TOML"),
        (b"\xff", "is no TOML"),
        (b"#" * (1 << 21), "cannot read"),
    ],
    ids=["lists", "inline tables", "dotted keys", "digits", "no UTF-8", "huge"],
)
def test_toml_that_cannot_be_read_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "it.toml").write_bytes(content)

    with pytest.raises(UsageError, match=says) as caught:
        read_toml(str(tmp_path / "it.toml"), hint="see the README")

    assert caught.value.hint == "see the README"


def test_toml_is_read(tmp_path: Path) -> None:
    (tmp_path / "it.toml").write_text("a = {b = ['c.d.e']}", encoding="utf-8")

    assert read_toml(str(tmp_path / "it.toml"), hint="") == {"a": {"b": ["c.d.e"]}}
