import json

import pytest

from exporter.errors import (
    AuthenticationError,
    DestinationError,
    ExporterError,
    IncompleteError,
    NetworkError,
    UsageError,
)
from exporter.model import Gateway
from exporter.ui.errors import ErrorReporter, guess_reporter

SECRET = "http://user:pa?s/s@word@host:3128/"


def report(
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    *,
    reporter: ErrorReporter | None = None,
) -> tuple[int, list[str]]:
    code = (reporter or ErrorReporter(as_json=False, with_traceback=False)).report_error(error)
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err.splitlines()


def test_error_is_one_line_and_its_hint_another(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = report(capsys, UsageError("no region", hint="name it"))

    assert (code, lines) == (2, ["error: no region", "hint: name it"])


def test_error_without_a_remedy_has_no_hint(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = report(capsys, DestinationError("cannot write 'x': Input/output error"))

    assert lines == ["error: cannot write 'x': Input/output error"]


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = report(capsys, ExporterError("a\nb\x1b[2J\x9b", hint="c\td"))

    assert lines == ["error: a\\x0ab\\x1b[2J\\x9b", "hint: c\\x09d"]


def test_errors_that_are_alike_are_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    errors = [NetworkError(f"page {n}: no answer", hint="wait") for n in (1, 2, 2, 3)]

    code, lines = report(capsys, ExceptionGroup("", [errors[0], ExceptionGroup("", errors[1:])]))

    assert code == 1
    assert lines == ["error: page 1: no answer (and 2 more like it)", "hint: wait"]


def test_errors_that_differ_are_each_reported(capsys: pytest.CaptureFixture[str]) -> None:
    refused = AuthenticationError("wrong secret", hint="check it", status=403)

    code, lines = report(
        capsys, ExceptionGroup("", [NetworkError("no answer", hint="wait"), refused])
    )

    assert code == 3
    assert lines == ["error: no answer", "hint: wait", "error: wrong secret", "hint: check it"]


def test_exit_code_is_that_of_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = report(capsys, IncompleteError("cannot prove it", hint="again"))

    assert code == 4


def test_nothing_is_reported_to_a_reader_that_has_gone(capsys: pytest.CaptureFixture[str]) -> None:
    errors = [BrokenPipeError(), NetworkError("cancelled")]

    code, lines = report(capsys, ExceptionGroup("", errors))

    assert (code, lines) == (1, [])


def test_bug_is_reported_with_the_way_to_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = report(capsys, KeyError("page"))

    assert code == 1
    assert lines == [
        "error: internal error, KeyError: 'page'",
        "hint: run again with LIVY_EXPORTER_VERBOSE=2 and report the traceback",
    ]


def test_traceback_follows_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = ErrorReporter(as_json=False, with_traceback=True)

    _, lines = report(capsys, UsageError("no region"), reporter=reporter)

    assert lines[0] == "error: no region"
    assert lines[-1] == "exporter.errors.UsageError: no region"


def test_json_has_the_run_once_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = ErrorReporter(as_json=True, with_traceback=False)
    _, (early,) = report(capsys, UsageError("no region", hint="name it"), reporter=reporter)
    reporter.run_id = "r-1"

    _, (late,) = report(capsys, UsageError("no region"), reporter=reporter)

    assert json.loads(early) | {"ts": ""} == {
        "ts": "",
        "level": "error",
        "event": "error",
        "error": "no region",
        "hint": "name it",
    }
    assert json.loads(late)["run_id"] == "r-1"


def test_interrupt_is_reported_with_the_fate_of_the_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ErrorReporter(as_json=False, with_traceback=False).report_interrupt("nothing was published")
    ErrorReporter(as_json=True, with_traceback=False, run_id="r-1").report_interrupt("")

    text, line = capsys.readouterr().err.splitlines()
    assert text == "interrupted: nothing was published"
    assert json.loads(line) | {"ts": ""} == {
        "ts": "",
        "level": "warning",
        "event": "interrupted",
        "run_id": "r-1",
        "message": "interrupted",
    }


def test_json_names_the_gateway_that_all_alike_are_about(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second, third = (NetworkError(f"page {n}: refused") for n in (1, 2, 3))
    first.gateway = second.gateway = Gateway("cn-hangzhou", "w-1", "lc-1")
    third.gateway = Gateway("cn-hangzhou", "w-1", "lc-2")

    for group in ([first, second], [first, third]):
        ErrorReporter(as_json=True, with_traceback=False).report_error(ExceptionGroup("two", group))

    same, mixed = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (same["region_id"], same["workspace_id"], same["gateway_id"]) == (
        "cn-hangzhou",
        "w-1",
        "lc-1",
    )
    assert mixed["error"] == "page 1: refused (and 1 more like it)"
    assert "gateway_id" not in mixed


@pytest.mark.parametrize(
    ("arguments", "environ", "as_json", "with_traceback"),
    [
        ([], {}, False, False),
        (["--log-format", "json"], {}, True, False),
        (["--log-format=json"], {}, True, False),
        (["--log-format", "text", "json"], {}, False, False),
        ([], {"LIVY_EXPORTER_LOG_FORMAT": "json"}, True, False),
        (["-v"], {}, False, False),
        (["-vv"], {}, False, True),
        (["-v", "export", "--verbose"], {}, False, True),
        ([], {"LIVY_EXPORTER_VERBOSE": "2"}, False, True),
    ],
)
def test_reporter_is_guessed_from_the_arguments(
    arguments: list[str], environ: dict[str, str], as_json: bool, with_traceback: bool
) -> None:
    reporter = guess_reporter(arguments, environ=environ)

    assert (reporter.as_json, reporter.with_traceback) == (as_json, with_traceback)


@pytest.mark.parametrize("as_json", [False, True])
def test_error_its_hint_and_its_causes_are_reported_with_urls_masked(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    error = NetworkError(f"cannot reach {SECRET}", hint=f"check {SECRET}")
    error.__cause__ = OSError(f"no way to {SECRET}")

    ErrorReporter(as_json=as_json, with_traceback=True).report_error(error)

    shown = capsys.readouterr().err
    assert "word" not in shown
    assert shown.count("http://***@host:3128/") == 4
