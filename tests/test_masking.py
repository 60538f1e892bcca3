import pytest

from exporter.errors import NetworkError, mask_url, mask_urls
from exporter.ui.errors import ErrorReporter

SECRET = "http://user:pa?s/s@word@host:3128/"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("https://host:1/path", "https://host:1/path"),
        ("https://user:word@host:1/path", "***@host:1/path"),
        (SECRET, "***@host:3128/"),
        ("https://host/path?token=1", "https://host/path"),
        ("https://u:p@host/path?token=1", "***@host/path"),
        ("", ""),
    ],
)
def test_url_is_shown_without_what_may_be_a_password(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("no URL, but a@b", "no URL, but a@b"),
        ("at http://host:1/ and a@b", "at http://host:1/ and a@b"),
        (f"at {SECRET}, twice: {SECRET}", "at http://***@host:3128/, twice: http://***@host:3128/"),
        ("url='HTTP://u:p@h', s3a://k:s@b/x", "url='HTTP://***@h', s3a://***@b/x"),
        ("postgresql+psycopg2://u:p@h", "postgresql+psycopg2://***@h"),
    ],
)
def test_text_is_shown_with_its_urls_masked(text: str, masked: str) -> None:
    assert mask_urls(text) == masked


@pytest.mark.parametrize("as_json", [False, True])
def test_error_its_hint_and_its_causes_are_told_with_urls_masked(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    error = NetworkError(f"cannot reach {SECRET}", hint=f"check {SECRET}")
    error.__cause__ = OSError(f"no way to {SECRET}")

    ErrorReporter(as_json=as_json, with_traceback=True).tell_error(error)

    told = capsys.readouterr().err
    assert "word" not in told
    assert told.count("http://***@host:3128/") == 4
