import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from exporter.errors import DestinationError
from exporter.stores.hashing import HashingFile
from exporter.stores.interface import FileFacts
from exporter.stores.pipe import PipeFile


def publish(path: str, content: bytes) -> FileFacts:
    file = HashingFile(PipeFile(path))
    file.write(content)
    facts = file.finish(path)
    file.publish()
    return facts


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_device_is_an_error_with_its_remedy() -> None:
    file = HashingFile(PipeFile("/dev/full"))
    file.write(b"x")

    with pytest.raises(DestinationError, match="No space left") as caught:
        file.finish("/dev/full")
    file.discard()

    assert "free some space" in str(caught.value.hint)


def test_device_is_written_through_and_never_replaced(tmp_path: Path) -> None:
    link = tmp_path / "out.ndjson"
    link.symlink_to(os.devnull)

    facts = publish(str(link), b"gone")

    assert facts.size_bytes == 4
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["out.ndjson"]


def test_pipe_gets_the_bytes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    thread = threading.Thread(target=lambda: received.append(drain(reader)))

    file = HashingFile(PipeFile(str(pipe)))
    thread.start()
    file.write(b"x" * 1_000_000)
    facts = file.finish(str(pipe))
    file.publish()
    thread.join()

    assert received == [b"x" * 1_000_000]
    assert facts.path == str(pipe)


def drain(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as stream:
        return stream.read()


def test_pipe_that_nobody_reads_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(DestinationError) as caught:
        PipeFile(str(tmp_path / "pipe"))

    assert caught.value.hint == "start the reader of the pipe first"


def test_reader_that_goes_away_is_no_fault_of_the_output(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    file = HashingFile(PipeFile(str(pipe)))
    os.close(reader)

    file.write(b"x")
    with pytest.raises(BrokenPipeError):
        file.finish(str(pipe))

    file.discard()
    file.discard()


def test_stdout_gets_the_bytes_and_stays_open(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    facts = publish("-", b"line\n")
    os.write(1, b"after\n")

    assert capfdbinary.readouterr().out == b"line\nafter\n"
    assert facts == FileFacts("-", 5, hashlib.sha256(b"line\n").hexdigest())


def test_closed_stdout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)

    with pytest.raises(DestinationError, match="stdout is closed"):
        PipeFile("-")


def test_slow_reader_of_a_non_blocking_pipe_loses_nothing() -> None:
    program = (
        "import os; from exporter.stores.pipe import PipeFile\n"
        "os.set_blocking(1, False)\n"
        "file = PipeFile('-'); file.write(b'x' * 3_000_000); file.sync(); file.publish()"
    )

    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        output, _ = process.communicate()

    assert (process.returncode, len(output)) == (0, 3_000_000)
