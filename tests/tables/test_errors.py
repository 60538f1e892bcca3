"""Errors of table libraries reach the user without the password of a URL."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import ExporterError, UsageError
from exporter.stores.local import LocalStore
from exporter.stores.url import StoreAccess
from exporter.tables import delta, delta_folder, iceberg_catalog, paimon_names
from exporter.tables.interface import TableRequest
from exporter.tables.registry import find_format

pytestmark = pytest.mark.campaign

PASSWORD = "pass@w0rd-of-a-proxy"
URL = f"http://user:{PASSWORD}@proxy.example:3128/x"
OPTIONS = {"metastore": "rest", "uri": "http://x", "warehouse": "w"}
PAIMON = paimon_names.TableName("paimon://lake/ops.sessions", "ops", "sessions", OPTIONS, "s3://b")

TRANSLATED: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "delta": lambda: delta.translated("s3://lake/sessions"),
    "iceberg": lambda: iceberg_catalog.translated("iceberg://lake/ops.sessions"),
    "paimon": lambda: paimon_names.translated(PAIMON),
}


def list_shown(error: BaseException) -> list[str]:
    return [str(error), repr(error), str(getattr(error, "hint", ""))]


@pytest.mark.parametrize("library", TRANSLATED)
@pytest.mark.parametrize(
    "said",
    [
        f"Generic S3 error: error sending request for url ({URL})",
        f'send failed, source: Some(message: "{URL} refused")',
        f"{URL}\nGeneric error: {URL}",
        f"{'x' * 170} {URL}",
        f"{'x' * 195}{URL}",
        f"{'x' * 390}{URL} {'y' * 300}",
        f"commit conflicts: {URL}",
        f"A table already exists at: {URL}",
    ],
)
def test_password_of_a_url_is_never_shown(library: str, said: str) -> None:
    with pytest.raises(ExporterError) as caught, TRANSLATED[library]():
        raise OSError(said)

    for shown in list_shown(caught.value):
        assert PASSWORD not in shown
        assert PASSWORD.partition("@")[2] not in shown
        assert "user:" not in shown
        assert len(shown) < 600


@pytest.mark.parametrize("library", TRANSLATED)
def test_start_of_a_password_is_not_left_where_a_text_is_cut(library: str) -> None:
    for before in range(120, 420, 3):
        with pytest.raises(ExporterError) as caught, TRANSLATED[library]():
            raise OSError(f"{'x' * before} {URL} {'y' * 500}")

        assert PASSWORD[:4] not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        lambda output: find_format(f"iceberg{output}", chosen="delta", access=None),
        lambda output: find_format(f"paimon{output}", chosen="delta", access=None),
        lambda output: iceberg_catalog.parse_table_name(f"iceberg{output}"),
        lambda output: paimon_names.resolve_name(f"paimon{output}", {}, {}),
        lambda output: delta_folder.open_folder(f"s3{output}", StoreAccess()),
        lambda output: delta.open_table(TableRequest(output=f"s3{output}")),
    ],
)
@pytest.mark.parametrize("rest", ["/ops.sessions", "/", ""])
def test_password_in_an_output_is_never_shown(name: Callable[[str], Any], rest: str) -> None:
    with pytest.raises(UsageError) as caught:
        name(f"://user:{PASSWORD}@lake{rest}")

    assert "w0rd" not in "".join(list_shown(caught.value))


def test_secrets_of_options_are_in_no_repr(tmp_path: Path) -> None:
    secret = "s3cret-value"
    options = {**OPTIONS, "token": secret}
    access = StoreAccess(environ={"AWS_SECRET_ACCESS_KEY": secret})
    folder = delta_folder.DeltaFolder(
        store=LocalStore(str(tmp_path)),
        uri="s3://lake/sessions",
        build_options=lambda: options,
    )
    shown = [
        TableRequest(output="s3://lake/x", access=access, catalogs={"lake": options}),
        paimon_names.TableName("paimon://lake/a.b", "a", "b", options, None),
        folder,
        delta.DeltaLakeTable("s3://lake/x", folder, partition_by=()),
    ]

    assert [each for each in shown if secret in repr(each)] == []
