import errno
import fcntl
import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.destinations import Destination, FileFacts, open_destination
from exporter.errors import DestinationError, UsageError
from exporter.partials import translated

MANIFEST = b'{"run_id": "run-1"}\n'


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def publish(output: Path | str, content: bytes, *, run_id: str = "run-1") -> FileFacts:
    destination = open_destination(str(output), run_id=run_id)
    destination.stream.write(content)
    facts = destination.finish()
    destination.publish(MANIFEST)
    return facts


def leave_dead_run(output: Path, run_id: str) -> None:
    """A run that is killed while it writes: nothing of Python's own clean-up happens."""
    program = (
        "import os, signal, sys; from exporter.destinations import open_destination\n"
        f"d = open_destination({str(output)!r}, run_id={run_id!r})\n"
        "d.stream.write(b'half'); d.stream.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    result = subprocess.run([sys.executable, "-c", program], check=False)
    assert result.returncode == -signal.SIGKILL


@pytest.fixture
def small_file_limit() -> Iterator[int]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    yield 1 << 20
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_published_file_is_what_was_written_and_facts_say_so(tmp_path: Path) -> None:
    content = os.urandom(1_000_000)

    facts = publish(tmp_path / "out.parquet", content)

    assert (tmp_path / "out.parquet").read_bytes() == content
    assert (tmp_path / "out.parquet.manifest.json").read_bytes() == MANIFEST
    assert facts == FileFacts(
        path=str(tmp_path / "out.parquet"),
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    assert names(tmp_path) == {"out.parquet", "out.parquet.manifest.json"}


def test_reader_sees_the_old_file_until_publish(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    publish(output, b"old")

    destination = open_destination(str(output), run_id="run-2")
    destination.stream.write(b"new")
    destination.finish()
    before = output.read_bytes()
    destination.publish(MANIFEST)

    assert (before, output.read_bytes()) == (b"old", b"new")


def test_discard_leaves_what_was_published_and_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    publish(output, b"old")
    destination = open_destination(str(output), run_id="run-2", manifest_path=str(tmp_path / "m"))
    destination.stream.write(b"new" * 100_000)

    destination.discard()
    destination.discard()

    assert output.read_bytes() == b"old"
    assert names(tmp_path) == {"out.parquet", "out.parquet.manifest.json"}


def test_discard_after_publish_keeps_the_file(tmp_path: Path) -> None:
    destination = open_destination(str(tmp_path / "out.parquet"), run_id="run-1")
    destination.finish()
    destination.publish(MANIFEST)

    destination.discard()

    assert names(tmp_path) == {"out.parquet", "out.parquet.manifest.json"}


def test_manifest_goes_to_the_named_file_too(tmp_path: Path) -> None:
    destination = open_destination(
        str(tmp_path / "out.parquet"), run_id="run-1", manifest_path=str(tmp_path / "m.json")
    )
    destination.finish()
    destination.publish(MANIFEST)

    assert (tmp_path / "m.json").read_bytes() == MANIFEST
    assert (tmp_path / "out.parquet.manifest.json").read_bytes() == MANIFEST


def test_manifest_named_where_it_goes_anyway_is_written_once(tmp_path: Path) -> None:
    beside = tmp_path / "out.parquet.manifest.json"

    destination = open_destination(
        str(tmp_path / "out.parquet"), run_id="run-1", manifest_path=str(beside)
    )
    destination.finish()
    destination.publish(MANIFEST)

    assert beside.read_bytes() == MANIFEST


@pytest.mark.parametrize("manifest_path", ["out.parquet", "./out.parquet", "-"])
def test_manifest_is_not_written_into_the_data(
    manifest_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError):
        open_destination("out.parquet", run_id="run-1", manifest_path=manifest_path)

    assert names(tmp_path) == set()


def test_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target = tmp_path / "disk" / "real.parquet"
    target.write_bytes(b"old")
    link = tmp_path / "latest.parquet"
    link.symlink_to(target)

    publish(link, b"new")

    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == {"disk", "latest.parquet", "latest.parquet.manifest.json"}


def test_new_file_has_the_mode_that_open_would_give_it(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        publish(tmp_path / "out.parquet", b"new")
    finally:
        os.umask(previous)

    assert stat.S_IMODE((tmp_path / "out.parquet").stat().st_mode) == 0o640


def test_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    output.write_bytes(b"old")
    output.chmod(0o600)

    publish(output, b"new")

    assert stat.S_IMODE(output.stat().st_mode) == 0o600


def test_successful_run_removes_what_dead_runs_left(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    leave_dead_run(output, "dead-1")
    leave_dead_run(output, "dead-2")
    assert len(names(tmp_path)) == 4

    publish(output, b"new")

    assert names(tmp_path) == {"out.parquet", "out.parquet.manifest.json"}


def test_files_of_live_runs_and_of_other_outputs_are_left_alone(tmp_path: Path) -> None:
    live = open_destination(str(tmp_path / "out.parquet"), run_id="live")
    leave_dead_run(tmp_path / "out.parquet.bak", "dead")
    (tmp_path / ".out.parquet.notes").write_text("mine")
    before = names(tmp_path)

    publish(tmp_path / "out.parquet", b"new", run_id="run-2")

    assert names(tmp_path) - before == {"out.parquet", "out.parquet.manifest.json"}
    assert before - names(tmp_path) == set()
    live.finish()
    live.publish(MANIFEST)


def test_failed_run_removes_nothing_of_others(tmp_path: Path) -> None:
    leave_dead_run(tmp_path / "out.parquet", "dead")
    before = names(tmp_path)

    open_destination(str(tmp_path / "out.parquet"), run_id="run-2").discard()

    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("output", "message", "hint"),
    [
        ("missing/deeper/out.parquet", "No such file", "mkdir -p missing/deeper"),
        ("folder", "'folder' is a folder", "name a file in it, such as folder/sessions.parquet"),
        ("folder/", "is a folder", "folder/sessions.parquet"),
        (".", "is a folder", "./sessions.parquet"),
        ("file/out.parquet", "Not a directory", "file is a file"),
        ("n" * 255, "name too long", "shorten the name"),
        ("loop", "symbolic links", None),
    ],
)
def test_output_that_cannot_be_is_refused_at_once(
    output: str, message: str, hint: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    Path("loop").symlink_to("loop")

    with pytest.raises(DestinationError, match=message) as caught:
        open_destination(output, run_id="run-1")

    assert hint is None or hint in str(caught.value.hint)
    assert names(tmp_path) == {"folder", "file", "loop"}


def test_refused_manifest_leaves_no_partial_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="No such file"):
        open_destination(
            str(tmp_path / "out.parquet"), run_id="run-1", manifest_path=str(tmp_path / "no" / "m")
        )

    assert names(tmp_path) == set()


@pytest.mark.parametrize("output", ["ftp://host/x", "xyz://bucket/key.parquet", "", "a\0b"])
def test_output_of_another_kind_is_a_usage_error(output: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_destination(output, run_id="run-1")

    assert caught.value.exit_code == 2
    assert caught.value.hint is not None


def test_folder_without_permission_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)

    with pytest.raises(DestinationError, match="Permission denied") as caught:
        open_destination(str(tmp_path / "out.parquet"), run_id="run-1")

    assert str(tmp_path) in str(caught.value.hint)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.EACCES, "check who may write to the folder /data"),
        (errno.EROFS, "file system that can be written"),
        (errno.ENOSPC, "free some space where /data is"),
        (errno.EDQUOT, "free some space where /data is"),
    ],
)
def test_failure_of_the_system_is_told_with_its_remedy(code: int, hint: str) -> None:
    with (
        pytest.raises(DestinationError, match=r"/data/out\.parquet") as caught,
        translated("/data/out.parquet"),
    ):
        raise OSError(code, os.strerror(code))

    assert hint in str(caught.value.hint)


def test_disk_that_fills_up_publishes_nothing(tmp_path: Path, small_file_limit: int) -> None:
    output = tmp_path / "out.parquet"
    publish(output, b"old")
    destination = open_destination(str(output), run_id="run-2")

    with pytest.raises(DestinationError, match="File too large") as caught:
        destination.stream.write(b"x" * (small_file_limit + 1))
    destination.discard()

    assert caught.value.hint is not None
    assert output.read_bytes() == b"old"
    assert names(tmp_path) == {"out.parquet", "out.parquet.manifest.json"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_device_is_told_with_the_remedy() -> None:
    destination = open_destination("/dev/full", run_id="run-1")
    destination.stream.write(b"x")

    with pytest.raises(DestinationError, match="No space left") as caught:
        destination.finish()
    destination.discard()

    assert "free some space" in str(caught.value.hint)


def test_device_is_written_through_and_never_replaced(tmp_path: Path) -> None:
    link = tmp_path / "out.ndjson"
    link.symlink_to(os.devnull)

    facts = publish(link, b"gone")

    assert facts.size_bytes == 4
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    assert names(tmp_path) == {"out.ndjson"}


def test_pipe_gets_the_bytes_and_the_manifest_its_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    thread = threading.Thread(target=lambda: received.append(drain(reader)))

    destination = open_destination(
        str(pipe), run_id="run-1", manifest_path=str(tmp_path / "m.json")
    )
    thread.start()
    destination.stream.write(b"x" * 1_000_000)
    facts = destination.finish()
    destination.publish(MANIFEST)
    thread.join()

    assert received == [b"x" * 1_000_000]
    assert facts.path == str(pipe)
    assert names(tmp_path) == {"pipe", "m.json"}


def drain(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as stream:
        return stream.read()


def test_pipe_that_nobody_reads_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(DestinationError) as caught:
        open_destination(
            str(tmp_path / "pipe"), run_id="run-1", manifest_path=str(tmp_path / "m.json")
        )

    assert caught.value.hint == "start the reader of the pipe first"
    assert names(tmp_path) == {"pipe"}


def test_reader_that_goes_away_is_no_fault_of_the_output(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    destination = open_destination(str(pipe), run_id="run-1")
    os.close(reader)

    destination.stream.write(b"x")
    with pytest.raises(BrokenPipeError):
        destination.finish()

    destination.discard()


def test_stdout_gets_the_bytes_and_stays_open(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    facts = publish("-", b"line\n")
    os.write(1, b"after\n")

    assert capfdbinary.readouterr().out == b"line\nafter\n"
    assert facts == FileFacts("-", 5, hashlib.sha256(b"line\n").hexdigest())


def test_closed_stdout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)

    with pytest.raises(DestinationError, match="stdout is closed"):
        open_destination("-", run_id="run-1")


def test_slow_reader_of_a_non_blocking_pipe_loses_nothing() -> None:
    program = (
        "import os; from exporter.destinations import open_destination\n"
        "os.set_blocking(1, False)\n"
        "d = open_destination('-', run_id='r'); d.stream.write(b'x' * 3_000_000); d.finish()"
    )

    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        output, _ = process.communicate()

    assert (process.returncode, len(output)) == (0, 3_000_000)


def test_run_holds_a_lock_on_its_partial(tmp_path: Path) -> None:
    destination: Destination = open_destination(str(tmp_path / "out.parquet"), run_id="run-1")
    fd = os.open(tmp_path / ".out.parquet.run-1.partial", os.O_RDWR)

    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    os.close(fd)
    destination.discard()
