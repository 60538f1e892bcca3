"""Claims about the lines of the log."""

import json
import logging
from io import StringIO
from typing import Any

import pytest

from exporter.model import Gateway
from exporter.settings.settings import LogFormat
from exporter.ui.logs import LineHandler, configure_logging, line_writer

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")

logger = logging.getLogger("exporter.test")


class Identity:
    """Something with a secret in its repr, as a careless class has."""

    def __repr__(self) -> str:
        return "Identity(secret='LTAI-hidden')"


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("LTAI-hidden")


def configured(
    *, verbosity: int = 0, log_format: LogFormat = "text"
) -> tuple[StringIO, LineHandler]:
    stream = StringIO()
    handler = configure_logging(
        verbosity=verbosity, log_format=log_format, stream=stream, run_id="r-1"
    )
    return stream, handler


def fail() -> None:
    raise OSError("disk is full")


def log_failure() -> None:
    try:
        fail()
    except OSError:
        logger.exception("cannot write %s", "out.parquet")


def only_object(stream: StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    shown: dict[str, Any] = json.loads(line)
    return shown


@pytest.mark.parametrize(
    ("verbosity", "levels"),
    [
        (-1, ["error"]),
        (0, ["warning", "error"]),
        (1, ["info", "warning", "error"]),
        (2, ["debug", "info", "warning", "error"]),
        (3, ["debug", "info", "warning", "error"]),
    ],
)
def test_verbosity_decides_which_levels_are_written(verbosity: int, levels: list[str]) -> None:
    stream, _ = configured(verbosity=verbosity)

    logger.debug("d")
    logger.info("i")
    logger.warning("w")
    logger.error("e")

    assert [line.split(":")[0] for line in stream.getvalue().splitlines()] == levels


def test_text_is_level_and_message() -> None:
    stream, _ = configured()

    logger.warning("slowed down by %s", "Throttling.User")

    assert stream.getvalue() == "warning: slowed down by Throttling.User\n"


def test_the_logger_is_named_when_everything_is_written() -> None:
    stream, _ = configured(verbosity=2)

    logger.warning("slowed down")

    assert stream.getvalue() == "warning: exporter.test: slowed down\n"


def test_a_message_cannot_steer_the_terminal_or_fake_a_line() -> None:
    stream, _ = configured()

    logger.warning("answer was %s", "\x1b[2Jx\nerror: not real\x9b0m")

    assert stream.getvalue() == "warning: answer was \\x1b[2Jx\\x0aerror: not real\\x9b0m\n"


@pytest.mark.parametrize("verbosity", [-1, 0, 1])
def test_an_exception_is_one_line_without_traceback(verbosity: int) -> None:
    stream, _ = configured(verbosity=verbosity)

    log_failure()

    assert stream.getvalue() == "error: cannot write out.parquet: OSError: disk is full\n"


def test_tracebacks_are_written_when_everything_is() -> None:
    stream, _ = configured(verbosity=2)

    log_failure()

    assert "Traceback (most recent call last)" in stream.getvalue()
    assert "in fail" in stream.getvalue()


def test_json_has_time_level_run_and_message() -> None:
    stream, _ = configured(log_format="json")

    logger.warning("slowed down by %s", "Throttling.User")

    shown = only_object(stream)
    assert shown.pop("ts").endswith("Z")
    assert shown == {
        "level": "warning",
        "event": "log",
        "run_id": "r-1",
        "logger": "exporter.test",
        "message": "slowed down by Throttling.User",
    }


def test_json_names_the_gateway_and_the_event_it_was_given() -> None:
    stream, _ = configured(log_format="json")

    logger.warning("slow", extra={"gateway": GATEWAY, "event": "retry", "wait_s": 1.5})

    shown = only_object(stream)
    assert (shown["region_id"], shown["workspace_id"], shown["gateway_id"]) == (
        "cn-hangzhou",
        "w-1",
        "lc-1",
    )
    assert (shown["event"], shown["wait_s"]) == ("retry", 1.5)


@pytest.mark.parametrize("verbosity", [0, 2])
def test_json_has_a_traceback_only_when_everything_is_written(verbosity: int) -> None:
    stream, _ = configured(verbosity=verbosity, log_format="json")

    log_failure()

    shown = only_object(stream)
    assert shown["error"] == "OSError: disk is full"
    assert ("traceback" in shown) == (verbosity == 2)


@pytest.mark.parametrize("verbosity", [0, 2])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_values_attached_for_other_purposes_are_not_dumped(
    verbosity: int, log_format: LogFormat
) -> None:
    stream, _ = configured(verbosity=verbosity, log_format=log_format)

    logger.warning("signed", extra={"identity": Identity(), "headers": {"x": Identity()}})

    assert "signed" in stream.getvalue()
    assert "hidden" not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_locals_are_not_dumped_with_a_traceback(log_format: LogFormat) -> None:
    stream, _ = configured(verbosity=2, log_format=log_format)
    identity = Identity()

    try:
        _ = 1 // (0 if identity is not None else 1)
    except ZeroDivisionError:
        logger.exception("failed")

    assert "ZeroDivisionError" in stream.getvalue()
    assert "hidden" not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_call_that_cannot_be_formatted_neither_raises_nor_dumps_its_arguments(
    log_format: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, _ = configured(log_format=log_format)

    logger.warning("%d sessions", Identity())
    logger.warning("%s", Unprintable())
    logger.warning("slow", extra={"call": Identity()} if log_format == "json" else {})

    assert stream.getvalue().count("no log line could be made of line") >= 2
    assert log_format == "text" or all(
        json.loads(line)["level"] == "error" for line in stream.getvalue().splitlines()
    )
    assert "hidden" not in stream.getvalue()
    assert capsys.readouterr().err == ""


def test_lines_go_to_whoever_owns_the_terminal_and_back() -> None:
    stream, handler = configured()
    above_the_bar: list[str] = []

    with handler.redirect_to(above_the_bar.append):
        logger.warning("during")
    logger.warning("after")

    assert above_the_bar == ["warning: during"]
    assert stream.getvalue() == "warning: after\n"


def test_lines_go_back_although_the_run_failed() -> None:
    stream, handler = configured()

    with pytest.raises(KeyboardInterrupt), handler.redirect_to(lambda line: None):
        raise KeyboardInterrupt
    logger.warning("after")

    assert stream.getvalue() == "warning: after\n"


def test_only_the_package_is_configured(package_logger: logging.Logger) -> None:
    root_before = (list(logging.root.handlers), logging.root.level)

    stream, _ = configured(verbosity=2)
    logging.getLogger("aiohttp.test").warning("not ours")

    assert (list(logging.root.handlers), logging.root.level) == root_before
    assert stream.getvalue() == ""
    assert package_logger.propagate is False


def test_configuring_twice_writes_each_line_once() -> None:
    first, _ = configured()
    second, _ = configured()

    logger.warning("once")

    assert first.getvalue() == ""
    assert second.getvalue() == "warning: once\n"


def test_a_reader_that_went_away_is_no_failure() -> None:
    class Gone(StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    write_line = line_writer(Gone())

    write_line("nobody hears this")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_line_and_traceback_show_no_password_of_a_url(log_format: LogFormat) -> None:
    url = "http://user:pa?s/s@w0rd@host:3128/"
    stream, _ = configured(verbosity=2, log_format=log_format)

    try:
        raise OSError(f"no way to {url}")  # noqa: TRY301  # the traceback is the point
    except OSError as exc:
        logger.warning("asked %s", url, exc_info=exc, extra={"error": f"at {url}"})

    assert "w0rd" not in stream.getvalue()
    assert stream.getvalue().count("http://***@host:3128/") >= 3
