"""Names of Paimon tables, and the catalogs that a run may commit through."""

from collections.abc import Mapping

import pytest

from exporter.errors import CredentialsError, DestinationError, ExporterError, UsageError
from exporter.settings.catalogs import Options
from exporter.tables.interface import CommitConflict
from exporter.tables.paimon_names import TableName, resolve_name, translated

OUTPUT = "paimon://lake/ops.sessions"
LOCAL = {"lake": {"warehouse": "/data/wh"}}
REST = {"lake": {"metastore": "rest", "uri": "http://x", "warehouse": "w", "sidecars": "s3://b/x"}}


def resolve(output: str, catalogs: Mapping[str, Options]) -> TableName:
    return resolve_name(output, catalogs, {})


@pytest.mark.parametrize(
    "warehouse", ["/data/wh", "/data/wh/", "file:/data/wh", "file:///data/wh", "/data/./wh"]
)
def test_local_table_is_known_by_its_folder_however_it_is_spelled(warehouse: str) -> None:
    name = resolve(OUTPUT, {"lake": {"warehouse": warehouse, "max": "5"}})

    assert (name.database, name.table) == ("ops", "sessions")
    assert name.options == {"warehouse": "/data/wh", "max": "5"}
    assert name.location == "/data/wh/ops.db/sessions"
    assert name.is_local


def test_folder_in_a_local_warehouse_names_the_same_table() -> None:
    name = resolve("/data/wh/ops.db/sessions/", {})

    assert name.location == resolve(OUTPUT, LOCAL).location
    assert name.options == {"warehouse": "/data/wh"}


def test_table_of_a_server_has_its_files_where_the_catalog_says() -> None:
    name = resolve(OUTPUT, REST)

    assert name.options == {"metastore": "rest", "uri": "http://x", "warehouse": "w"}
    assert name.location == "s3://b/x/ops.db/sessions"
    assert not name.is_local


@pytest.mark.parametrize(
    "output",
    [
        "paimon://lake/sessions",
        "paimon://lake/a.b.c",
        "paimon://lake/",
        "paimon:///ops.sessions",
        "paimon://lake/ops.sessions$snapshots",
        "paimon://lake/ops.sessions/",
        "paimon://lake/ops.`sessions`",
        "sessions/",
        "-",
        "s3://bucket/wh/ops.db/sessions",
    ],
)
def test_name_of_no_table_is_refused(output: str) -> None:
    with pytest.raises(UsageError, match="names no Paimon table") as caught:
        resolve(output, LOCAL)

    assert caught.value.hint is not None
    assert "paimon://catalog/database.table" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "says", "hints"),
    [
        ({"warehouse": "oss://b/wh"}, "commits to 'oss://b/wh' without a server", "REST catalog"),
        ({"warehouse": "s3://k:pa55@b"}, r"commits to '\*\*\*@b' without a server", "REST"),
        ({"warehouse": "hdfs://nn/wh"}, "without a server", "local warehouse"),
        ({"metastore": "hive", "warehouse": "/x"}, "is of the kind 'hive'", "rest"),
        ({"metastore": "filesystem"}, "has no warehouse", "warehouse"),
        ({"metastore": "rest", "uri": "http://x"}, "has no 'sidecars'", "oss://bucket/livy"),
        ({"warehouse": "/x", "sidecars": "/y"}, "and 'sidecars'", "one lock"),
    ],
    ids=str,
)
def test_catalog_through_which_commits_could_be_lost_is_refused(
    options: Options, says: str, hints: str
) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        resolve(OUTPUT, {"lake": options})

    assert caught.value.hint is not None
    assert hints in caught.value.hint


class PanicException(BaseException):
    """Derives from BaseException, as the library's own does."""


@pytest.mark.parametrize(
    ("raised", "kind", "says"),
    [
        (ValueError("Not authorized: no s3cret-value"), CredentialsError, "Not authorized: no ***"),
        (ValueError("External error: Forbidden: no"), CredentialsError, ": Forbidden: no"),
        (ValueError("Paimon hitting invalid config: x: None"), UsageError, ": x"),
        (
            ValueError(
                "Failed to create directory 's3://b/x': PermissionDenied (permanent) at write =>"
                ' S3Error { code: "InvalidAccessKeyId", message: "s3cret-value" }'
            ),
            CredentialsError,
            "its storage says InvalidAccessKeyId",
        ),
        (
            ValueError("Failed: PermissionDenied (permanent) at write, response: Parts {}"),
            CredentialsError,
            "its storage says PermissionDenied",
        ),
        (
            ValueError('RateLimited (temporary) at write => S3Error { code: "SlowDown" }'),
            DestinationError,
            "its storage says SlowDown",
        ),
        (
            ValueError(
                'Paimon hitting unexpected error http get failed: Some(reqwest::Error { url: "u?t'
                '=s3cret-value", source: Error(Connect, ConnectError("dns error", Custom { error:'
                ' "Name or service not known" })) })'
            ),
            DestinationError,
            "its catalog does not answer: Name or service not known",
        ),
        (
            ValueError("Commit failed for snapshot 3, there may exist commit conflicts"),
            CommitConflict,
            "commit conflicts",
        ),
        (
            ValueError("Service failure: down\nat line 3"),
            DestinationError,
            ": Service failure: down",
        ),
        (OSError("disk s3cret-value"), DestinationError, "disk ***"),
        (PanicException("called unwrap"), DestinationError, "called unwrap"),
    ],
    ids=str,
)
def test_error_of_the_library_is_one_of_ours_without_secrets(
    raised: BaseException, kind: type[ExporterError], says: str
) -> None:
    name = TableName(OUTPUT, "ops", "sessions", {"token": "s3cret-value"}, None)

    with pytest.raises(ExporterError) as caught, translated(name):
        raise raised

    assert type(caught.value) is kind
    assert str(caught.value).endswith(says) or says in str(caught.value)
    assert caught.value.hint is not None
    hides = "s3cret-value" in str(raised)
    assert caught.value.__cause__ is (None if hides else raised)
    assert "s3cret-value" not in f"{caught.value} {name!r}"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, AttributeError])
def test_other_errors_pass_unchanged(kind: type[BaseException]) -> None:
    name = TableName(OUTPUT, "ops", "sessions", {}, None)

    with pytest.raises(kind), translated(name):
        raise kind
