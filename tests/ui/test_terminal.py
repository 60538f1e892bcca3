"""The bar, the lines and the log on a real pseudo-terminal, in a process of their own."""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import exporter
from tests.support.patience import HANG_S

PATIENCE_S = HANG_S
"""A test that waits longer than this for the terminal fails."""

PROGRAM = """
import logging, os, signal, sys
from datetime import UTC, datetime
from exporter.events import *
from exporter.model import Gateway, ListingFacts
from exporter.ui.logs import configure_logging
from exporter.ui.progress import open_progress

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
log_format = sys.argv[1]
gateway = Gateway("cn-hangzhou", "w-1", "lc-1")
handler = configure_logging(verbosity=0, log_format=log_format, stream=sys.stderr, run_id="r-1")
try:
    with (
        open_progress(
            mode="auto", log_format=log_format, stream=sys.stderr, quiet=False, environ=os.environ
        ) as progress,
        handler.redirect_to(progress.write_line),
    ):
        progress(RunStarted("r-1", "out.parquet", datetime.now(UTC)))
        progress(GatewaysDiscovered(1))
        progress(ListingStarted(gateway, 20_000, 200))
        for step in sys.stdin:
            match step.strip():
                case "page":
                    progress(PageRead(gateway, 1, 100))
                    progress(SessionsWritten(100))
                case "log":
                    logging.getLogger("exporter.test").warning("slowed down " + "by a lot " * 20)
                case "fail":
                    raise OSError("disk is full")
                case "finish":
                    counts = (20_000, 20_000, 20_000, 0, 0, 0, 200, 0)
                    facts = ListingFacts(gateway, *counts, "quiescent")
                    progress(ListingFinished(facts))
                    progress(RunFinished("out.parquet", "complete", 20_000, 2_000_000, 3.2))
                    break
except KeyboardInterrupt:
    sys.exit(130)
except OSError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
"""

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
CODE = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])")


class Screen:
    """What a terminal of a fixed width shows; knows the codes a bar may use and refuses others."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows = [""]
        self.row = self.column = 0
        self.wraps = self.shows_cursor = True
        self.cut_count = 0
        """Characters that had no room while wrapping was off."""

    def feed(self, text: str) -> None:
        position = 0
        while position < len(text):
            code = CODE.match(text, position)
            if code is not None:
                self._obey(code[1] + code[3], code[2])
                position = code.end()
            else:
                self._put(text[position])
                position += 1

    def _obey(self, code: str, argument: str) -> None:
        match code, argument:
            case "J", "" | "0":
                self.rows[self.row] = self.rows[self.row][: self.column]
                del self.rows[self.row + 1 :]
            case "K", "2":
                self.rows[self.row] = ""
            case "A", _:
                self.row -= int(argument or 1)
            case "?l" | "?h", "7":
                self.wraps = code == "?h"
            case "?l" | "?h", "25":
                self.shows_cursor = code == "?h"
            case "m", _:
                pass
            case _:
                pytest.fail(f"unexpected code {code!r} {argument!r}")

    def _put(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self._next_row()
        elif self.column == self.columns and not self.wraps:
            self.cut_count += 1
        else:
            if self.column == self.columns:
                self._next_row()
                self.column = 0
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + char + row[self.column + 1 :]
            self.column += 1

    def _next_row(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")


class Terminal:
    """A pseudo-terminal with the program on it; the program's steps are written to its stdin."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.output = ""

    def do(self, *steps: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{step}\n" for step in steps).encode())
        self.process.stdin.flush()

    def resize(self, columns: int) -> None:
        set_columns(self._master, columns)
        self.process.send_signal(signal.SIGWINCH)

    def read_until(self, is_enough: Callable[[str], bool]) -> str:
        """What came since the last call, once it is enough."""
        since = len(self.output)
        deadline_s = time.monotonic() + PATIENCE_S
        while not is_enough(self.output[since:]):
            assert time.monotonic() < deadline_s, self.output[since:]
            self._read_some()
        return self.output[since:]

    def wait(self) -> int:
        """The exit code, with all output read."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline_s, self.output
            self._read_some()
        while self._read_some():
            pass
        return self.process.returncode

    def screen(self, columns: int) -> Screen:
        screen = Screen(columns)
        screen.feed(self.output)
        return screen

    def _read_some(self) -> bool:
        readable, _, _ = select.select([self._master], [], [], 0.05)
        if not readable:
            return False
        try:
            received = os.read(self._master, 65_536)
        except OSError:  # Linux: the program's side is closed
            return False
        self.output += self._decoder.decode(received)
        return received != b""


def set_columns(descriptor: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def environ_of(**extra: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(exporter.__file__).parent.parent),
        "PYTHONUTF8": "1",
        "TERM": "xterm-256color",
        **extra,
    }


@contextmanager
def opened(columns: int, *, log_format: str = "text", **environ: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    set_columns(master, columns)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, log_format],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=slave,
        env=environ_of(**environ),
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.communicate()
        os.close(master)


def frames_of(output: str) -> list[str]:
    """Each drawing of the row, without what stands between them."""
    return re.findall(r"\x1b\[\?7l(.*?)\x1b\[\?7h\r", output, flags=re.DOTALL)


def has_drawn(text: str) -> Callable[[str], bool]:
    return lambda output: any(text in CODE.sub("", frame) for frame in frames_of(output))


@pytest.mark.parametrize("columns", [8, 20, 40, 60, 80, 120, 250])
def test_the_bar_is_one_row_whatever_the_width(columns: int) -> None:
    with opened(columns) as terminal:
        terminal.do("page", "page")
        terminal.read_until(has_drawn("1%"))
    screen = terminal.screen(columns)

    assert "1%" in screen.rows[-1]
    assert len(screen.rows) == 1
    assert screen.cut_count == 0
    assert not screen.shows_cursor


def test_the_cursor_waits_on_the_first_character_of_the_bar() -> None:
    """A terminal that wraps the row anew when it is resized keeps the cursor there."""
    with opened(80) as terminal:
        terminal.do("page", "page")
        terminal.read_until(has_drawn("1%"))
    screen = terminal.screen(80)

    assert screen.column == 0
    assert screen.wraps


def test_each_frame_erases_what_a_longer_one_left() -> None:
    with opened(80) as terminal:
        terminal.do("page", "page")
        output = terminal.read_until(has_drawn("1%"))

    assert all(frame.endswith("\x1b[J") for frame in frames_of(output))


@pytest.mark.parametrize("columns", [60, 30, 100, 200])
def test_the_bar_follows_the_width_of_the_terminal(columns: int) -> None:
    with opened(80) as terminal:
        terminal.do("page", "page")
        terminal.read_until(has_drawn("1%"))
        terminal.resize(columns)
        terminal.read_until(lambda output: len(frames_of(output)) >= 2)
        output = terminal.read_until(lambda output: len(frames_of(output)) >= 2)
    screen = Screen(columns)
    screen.feed(output)

    assert screen.cut_count == 0
    assert len(screen.rows) == 1
    assert ("pages" in screen.rows[0]) == (columns >= 100)


def test_log_lines_stand_above_the_bar_whole_and_in_order() -> None:
    message = "warning: slowed down " + "by a lot " * 20
    with opened(60) as terminal:
        terminal.do("page", "log", "page", "log", "page", "page")
        terminal.read_until(has_drawn("2%"))
    screen = terminal.screen(60)

    logged = "".join(row.ljust(60) for row in screen.rows[:-1])
    assert logged.count(message) == 2
    assert logged.replace(message, "").strip() == ""
    assert "2%" in screen.rows[-1]


def test_only_the_summary_is_left_of_a_finished_run() -> None:
    with opened(100) as terminal:
        terminal.do("page", "page")
        terminal.read_until(has_drawn("1%"))
        terminal.do("finish")
        exit_code = terminal.wait()
    screen = terminal.screen(100)

    assert exit_code == 0
    assert screen.rows == [
        "20,000 sessions of w-1/lc-1 written to out.parquet (1.9 MiB) in 3.2s",
        "requests: 0 sent, 0 ok, 0 throttled, 0 retried; proof: quiescent",
        "",
    ]
    assert screen.shows_cursor


def test_ctrl_c_leaves_the_terminal_as_it_was() -> None:
    with opened(80) as terminal:
        terminal.do("page", "page")
        terminal.read_until(has_drawn("1%"))
        terminal.process.send_signal(signal.SIGINT)
        exit_code = terminal.wait()
    screen = terminal.screen(80)

    assert exit_code == 130
    assert "".join(screen.rows) == ""
    assert (screen.row, screen.column) == (0, 0)
    assert screen.shows_cursor
    assert screen.wraps


def test_a_failure_leaves_the_terminal_to_its_message() -> None:
    with opened(80) as terminal:
        terminal.do("page", "page", "fail")
        exit_code = terminal.wait()
    screen = terminal.screen(80)

    assert exit_code == 1
    assert screen.rows == ["error: disk is full", ""]
    assert screen.shows_cursor


def test_the_bar_has_colours_unless_they_are_not_wanted() -> None:
    with opened(80) as colourful:
        colourful.do("page", "page")
        colourful.read_until(has_drawn("1%"))
    with opened(80, NO_COLOR="1") as plain:
        plain.do("page", "page")
        plain.read_until(has_drawn("1%"))

    assert COLOUR.search(colourful.output) is not None
    assert COLOUR.search(plain.output) is None


def test_exported_columns_of_a_former_size_are_not_believed() -> None:
    with opened(60, COLUMNS="200", LINES="5") as terminal:
        terminal.do("page", "page")
        terminal.read_until(has_drawn("1%"))
    screen = terminal.screen(60)

    assert len(screen.rows) == 1
    assert screen.cut_count == 0


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"CI": "true"}])
def test_a_terminal_without_a_bar_gets_lines_and_no_codes(environ: dict[str, str]) -> None:
    with opened(80, **environ) as terminal:
        terminal.do("page", "log", "finish")
        exit_code = terminal.wait()

    assert exit_code == 0
    assert "\x1b" not in terminal.output
    assert "0 of 20,000 sessions (0%)" in terminal.output
    assert "warning: slowed down" in terminal.output


def test_json_lines_on_a_terminal_have_no_codes() -> None:
    with opened(80, log_format="json") as terminal:
        terminal.do("page", "log", "finish")
        terminal.wait()

    assert "\x1b" not in terminal.output
    assert all(line.startswith('{"ts":') for line in terminal.output.splitlines())


def test_a_pipe_gets_lines_and_no_codes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "text"],
        input=b"page\nlog\nfinish\n",
        capture_output=True,
        env=environ_of(FORCE_COLOR="1"),
        check=True,
        timeout=PATIENCE_S,
    )

    lines = done.stderr.decode().splitlines()
    assert b"\x1b" not in done.stderr
    assert lines[0] == "0 of 20,000 sessions (0%), 0 of 200 pages, 0 in flight"
    assert lines[1].startswith("warning: slowed down by a lot")
    assert lines[2].startswith("20,000 sessions of w-1/lc-1 written to out.parquet")
    assert done.stdout == b""
