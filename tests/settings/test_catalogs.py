"""Catalogs of Paimon tables: their options from the file and the environment, and their secrets."""

import re
import tomllib
from pathlib import Path

import pytest

from exporter.errors import UsageError
from exporter.settings.catalogs import (
    find_options,
    hide_secrets,
    is_public,
    mask_option,
    merge_catalogs,
    read_catalogs,
)
from exporter.settings.dump import dump_catalogs
from exporter.settings.load import load_settings
from exporter.settings.settings import Settings
from exporter.tables.paimon_names import resolve_name

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

DLF = """
[paimon.lake]
metastore = "rest"
uri = "https://cn-hangzhou-vpc.dlf.aliyuncs.com"
warehouse = "ops"
dlf.region = "cn-hangzhou"
dlf.access-key-id = "LTAI-of-the-file"
"dlf.access-key-secret" = "s3cret-value"
"token.provider" = "dlf"
retries = 5
data-token.enabled = true
"""


def read(toml: str) -> dict[str, dict[str, str]]:
    catalogs = read_catalogs(tomllib.loads(toml)["paimon"], path="livy.toml")
    return {name: dict(options) for name, options in catalogs.items()}


def test_options_of_the_file_have_their_dots_and_are_texts() -> None:
    assert read(DLF) == {
        "lake": {
            "metastore": "rest",
            "uri": "https://cn-hangzhou-vpc.dlf.aliyuncs.com",
            "warehouse": "ops",
            "dlf.region": "cn-hangzhou",
            "dlf.access-key-id": "LTAI-of-the-file",
            "dlf.access-key-secret": "s3cret-value",
            "token.provider": "dlf",
            "retries": "5",
            "data-token.enabled": "true",
        }
    }


@pytest.mark.parametrize(
    ("variable", "option"),
    [
        ("WAREHOUSE", "warehouse"),
        ("TOKEN__PROVIDER", "token.provider"),
        ("DLF__ACCESS_KEY_SECRET", "dlf.access-key-secret"),
        ("DLF__TOKEN_ECS_ROLE_NAME", "dlf.token-ecs-role-name"),
        ("DLF__OSS_ENDPOINT", "dlf.oss-endpoint"),
        ("FS__OSS__ACCESS_KEY_ID", "fs.oss.accessKeyId"),
        ("FS__OSS__ACCESSKEYSECRET", "fs.oss.accessKeySecret"),
        ("FS__OSS__ENDPOINT", "fs.oss.endpoint"),
        ("S3__PATH_STYLE_ACCESS", "s3.path-style-access"),
        ("SIDECARS", "sidecars"),
    ],
)
def test_variable_is_an_option(variable: str, option: str) -> None:
    environ = {f"PAIMON_CATALOG__LAKE__{variable}": "value"}

    assert merge_catalogs({}, environ) == {"lake": {option: "value"}}


def test_environment_wins_over_the_file_and_names_meet_in_one_spelling() -> None:
    catalogs = {"My_Lake": {"warehouse": "/of/the/file", "metastore": "filesystem"}}
    environ = {
        "PAIMON_CATALOG__MY_LAKE__WAREHOUSE": "/of/the/environment",
        "PAIMON_CATALOG__OTHER__URI": "http://x",
        "PAIMON_CATALOG__MY_LAKE__METASTORE": "",
        "PAIMON_CATALOG__MY_LAKE": "no option",
        "PAIMON_HOME": "somebody else's",
    }

    found = find_options("my-lake", catalogs, environ)

    assert found == {"warehouse": "/of/the/environment", "metastore": "filesystem"}
    assert merge_catalogs(catalogs, environ).keys() == {"my-lake", "other"}


def test_unknown_catalog_is_reported_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no Paimon catalog is called 'prod'") as caught:
        find_options("prod", {"lake": {}, "Dev": {}}, {})
    assert caught.value.hint == "there is dev, lake"

    with pytest.raises(UsageError) as caught:
        find_options("my-lake", {}, {})
    assert caught.value.hint is not None
    assert "[paimon.my-lake]" in caught.value.hint
    assert "PAIMON_CATALOG__MY_LAKE__WAREHOUSE" in caught.value.hint


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("paimon = 1", "'paimon' in "),
        ("paimon.lake = '/data'", "'paimon.lake' in "),
        ("[paimon.lake]\nwarehouse = ['/data']", "'paimon.lake.warehouse' in "),
        ("[paimon.lake]\ndlf.day = 2026-01-01", "'paimon.lake.dlf.day' in "),
        ("[paimon.lake]\n[paimon.LAKE]", "describes the catalog 'LAKE' twice"),
    ],
)
def test_wrong_type_of_options_is_reported_with_its_file(
    toml: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "livy.toml"
    path.write_text(toml, encoding="utf-8")

    with pytest.raises(UsageError, match=says) as caught:
        load_settings({}, environ={}, config_file=str(path))

    assert str(path) in str(caught.value)
    assert caught.value.hint is not None


def test_shown_catalogs_are_a_file_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "livy.toml"
    path.write_text(f"page_size = 7\n{DLF}", encoding="utf-8")
    settings = load_settings({}, environ={}, config_file=str(path)).settings
    environ = {"PAIMON_CATALOG__LAKE__URI": "https://me:pa55@dlf.example/x?token=pa55"}

    text = dump_catalogs(merge_catalogs(settings.paimon, environ))

    assert settings.page_size == 7
    shown = tomllib.loads(text)["paimon"]["lake"]
    assert shown["warehouse"] == "ops"
    assert shown["dlf.access-key-id"] == shown["dlf.access-key-secret"] == "***"
    assert shown["uri"] == "***@dlf.example/x"
    assert not any(secret in text + repr(settings) for secret in ("s3cret", "LTAI", "pa55"))


def test_example_and_readme_describe_a_catalog_that_loads(tmp_path: Path) -> None:
    example = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    described = re.sub(r'^#(?=\[paimon|")', "", example, flags=re.MULTILINE)
    shown = re.search(r"^```toml\n(\[paimon.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert shown is not None
    path = tmp_path / "livy.toml"
    for text in (described, shown[1]):
        path.write_text(text, encoding="utf-8")

        catalogs = load_settings({}, environ={}, config_file=str(path)).settings.paimon

        name = resolve_name("paimon://lake/ops.sessions", catalogs, {})
        assert name.location == "oss://lake/livy/ops.db/sessions"
        assert name.options["token.provider"] == "dlf"
        assert not any("=" in option for option in name.options)
        assert all(is_public(option) for option in name.options)


def test_unknown_options_are_secret() -> None:
    assert is_public("dlf.region")
    assert not is_public("dlf.security-token")
    assert mask_option("header.Authorization", "Bearer x") == "***"
    assert mask_option("warehouse", "/data") == "/data"


def test_texts_of_others_lose_the_secrets_of_a_catalog() -> None:
    options = {
        "token": "abcdef",
        "dlf.access-key-secret": "abcdef-and-more",
        "max.requests": "8",
        "warehouse": "lake",
        "uri": "http://me:pa55@host",
    }

    text = hide_secrets("8 lake: abcdef, abcdef-and-more at http://me:pa55@host/v1", options)

    assert text == "8 lake: ***, *** at ***@host/v1"


def test_settings_hold_catalogs_for_who_calls_the_library() -> None:
    assert Settings(paimon={"lake": {"warehouse": "/data"}}).paimon["lake"]["warehouse"] == "/data"
    assert Settings().paimon == {}
