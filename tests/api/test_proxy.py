"""Requests through a proxy, and reports of its failures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from anyio.from_thread import start_blocking_portal

from exporter.api.proxy import parse_proxy
from exporter.emulator.server import Emulator
from exporter.errors import UsageError
from tests.support.connect_proxy import ConnectProxy, open_proxy, open_tls_front, write_certificate
from tests.support.forks import Ended
from tests.support.program import COMMAND, Program

PASSWORD = "s3cr/t@p:ss"
USER = f"user:{PASSWORD}"
WITH_USER = f"user:{quote(PASSWORD, safe='')}"
EXPORT = ("export", "--workspace", "w-1", "--gateway", "lc-a", "--progress", "none")
LOUD = ("--output", "out.ndjson", "-vv")


@contextmanager
def proxying(proxy: ConnectProxy) -> Iterator[ConnectProxy]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_proxy(proxy)) as running,
    ):
        yield running


def export(program: "Program", url: str, *arguments: str, **environ: str) -> "Ended":
    """Over https, which no server speaks here: the proxy decides first."""
    return program.run(
        *EXPORT,
        *(arguments or LOUD),
        environ={
            "LIVY_EXPORTER_ENDPOINT": "https://service.invalid:8443",
            "HTTPS_PROXY": url,
            **environ,
        },
    )


def assert_error(ended: "Ended", code: int, *words: str) -> None:
    """The run ends with one error and one hint that contain these words, and no password."""
    lines = [each for each in ended.stderr_lines if each.startswith(("error:", "hint:"))]
    assert ended.code == code, ended.stderr
    assert len(lines) == 2, ended.stderr
    for word in words:
        assert word in "\n".join(lines)
    for secret in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), "user:"):
        assert secret not in ended.stderr
        assert secret not in ended.stdout


@pytest.mark.campaign
def test_requests_go_through_the_proxy_with_user_and_password(
    program: "Program", emulator: "Emulator", tmp_path: Path
) -> None:
    certificate = write_certificate(tmp_path / "loopback.pem")
    plain_port = urlsplit(emulator.endpoint).port
    assert plain_port is not None
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_tls_front(plain_port, certificate)) as tls_port,
        proxying(ConnectProxy(target=tls_port, user=USER)) as proxy,
    ):
        ended = program.run(
            *EXPORT,
            "--output",
            "-",
            "-vv",
            # Not forked: the client reads the certificates once, when it is imported.
            command=COMMAND,
            environ={
                "LIVY_EXPORTER_ENDPOINT": f"https://localhost:{tls_port}",
                "HTTPS_PROXY": f"http://{WITH_USER}@127.0.0.1:{proxy.port}",
                "SSL_CERT_FILE": str(certificate),
            },
        )

    assert ended.code == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 205
    assert {head.split("\r\n")[0] for head in proxy.heads} == {
        f"CONNECT localhost:{tls_port} HTTP/1.1"
    }
    assert PASSWORD not in ended.stderr


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_proxy_that_wants_another_password_is_reported_at_once(
    program: "Program", log_format: str
) -> None:
    with proxying(ConnectProxy(user="user:other")) as proxy:
        url = f"http://{WITH_USER}@127.0.0.1:{proxy.port}"
        ended = export(program, url, *LOUD, "--log-format", log_format)

    assert len(proxy.heads) == 1
    if log_format == "text":
        assert_error(ended, 1, f"the proxy http://127.0.0.1:{proxy.port}", "407", "HTTPS_PROXY")
    assert PASSWORD not in ended.stderr
    assert quote(PASSWORD, safe="") not in ended.stderr


@pytest.mark.parametrize("status", [400, 403, 405, 429])
def test_proxy_that_lets_nothing_through_is_reported_at_once(
    program: "Program", status: int
) -> None:
    with proxying(ConnectProxy(status=status)) as proxy:
        ended = export(program, f"http://{WITH_USER}@127.0.0.1:{proxy.port}")

    assert len(proxy.heads) == 1
    assert_error(
        ended,
        1,
        f"the proxy http://127.0.0.1:{proxy.port} does not let requests to service.invalid:8443"
        f" through (HTTP {status})",
        "NO_PROXY",
    )


@pytest.mark.parametrize("status", [502, 503, 504])
def test_proxy_that_cannot_reach_the_service_is_asked_once_more(
    program: "Program", status: int
) -> None:
    with proxying(ConnectProxy(status=status)) as proxy:
        ended = export(program, f"http://{WITH_USER}@127.0.0.1:{proxy.port}")

    assert len(proxy.heads) == 2
    assert_error(ended, 1, f"cannot reach service.invalid:8443 (HTTP {status})", "HTTPS_PROXY")


def test_proxy_that_nobody_listens_for_is_reported_after_one_more_try(program: "Program") -> None:
    with proxying(ConnectProxy()) as gone:
        pass

    ended = export(program, f"http://{WITH_USER}@127.0.0.1:{gone.port}")

    assert_error(
        ended,
        1,
        f"the proxy http://127.0.0.1:{gone.port} cannot be connected to: Connection refused"
        " (after 2 attempts)",
        "HTTPS_PROXY",
    )


def test_proxy_of_an_unknown_host_is_reported_after_one_more_try(program: "Program") -> None:
    ended = export(program, f"http://{WITH_USER}@proxy.invalid:3128")

    assert_error(
        ended, 1, "the proxy http://proxy.invalid:3128 cannot be found", "(after 2 attempts)"
    )


@pytest.mark.parametrize(
    "url",
    [
        f"socks5://{WITH_USER}@127.0.0.1:1080",
        f"http://{WITH_USER}@127.0.0.1:port",
        f"http://{WITH_USER}@127.0.0.1:99999",
        f"http://{WITH_USER}@",
        f"http://user:{PASSWORD}",
        f"http:/{WITH_USER}@127.0.0.1:1",
        "://",
        f"http://{WITH_USER}@two words:1",
    ],
)
def test_malformed_proxy_is_refused_before_any_request(program: "Program", url: str) -> None:
    ended = export(program, url)

    assert_error(ended, 2, "HTTPS_PROXY names no proxy", "USER:PASSWORD@")
    assert program.listing() == {}


def test_configuration_names_the_proxy_without_the_password(program: "Program") -> None:
    ended = program.run(
        "config",
        "show",
        environ={
            "LIVY_EXPORTER_ENDPOINT": "https://service.invalid",
            "HTTPS_PROXY": f"http://{WITH_USER}@proxy.invalid:3128",
            "LIVY_EXPORTER_STATE": f"s3://{USER}@bucket/state.json",
        },
    )

    assert ended.code == 0, ended.stderr
    assert "through the proxy http://proxy.invalid:3128 of HTTPS_PROXY" in ended.stdout
    assert "s3://***@bucket/state.json" in ended.stdout
    assert PASSWORD not in ended.stdout
    assert quote(PASSWORD, safe="") not in ended.stdout


@pytest.mark.parametrize(
    ("text", "url", "login"),
    [
        ("http://h:1", "http://h:1", None),
        ("h:3128", "http://h:3128", None),
        ("HTTPS://h.example/", "https://h.example", None),
        ("http://[::1]:1", "http://[::1]:1", None),
        ("http://u:p@h:1", "http://h:1", "dTpw"),
        ("u:p@h:1", "http://h:1", "dTpw"),
        ("http://u%40x:p%2F%3A@h:1", "http://h:1", "dUB4OnAvOg=="),
        ("http://u:p@x/y@h:1", "http://h:1", "dTpwQHgveQ=="),
        ("http://u@h:1", "http://h:1", "dTo="),
    ],
)
def test_proxy_is_read_as_people_write_it(text: str, url: str, login: str | None) -> None:
    proxy = parse_proxy(text, variable="HTTPS_PROXY")

    assert proxy.url == url
    assert proxy.headers == (None if login is None else {"Proxy-Authorization": f"Basic {login}"})
    assert "Basic" not in repr(proxy)


@pytest.mark.parametrize(
    "text", ["ftp://h:1", "http://h:0", "http://", "http://h:1/x", "http://h h"]
)
def test_what_is_no_proxy_is_refused_by_the_variables_name(text: str) -> None:
    with pytest.raises(UsageError, match="https_proxy names no proxy") as caught:
        parse_proxy(text, variable="https_proxy")

    assert caught.value.hint is not None
