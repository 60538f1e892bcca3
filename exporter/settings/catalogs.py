"""Catalogs of Paimon tables as the file and the environment describe them; performs no I/O.

Options have the names of Paimon's manuals, such as `dlf.access-key-id`. The variable
PAIMON_CATALOG__NAME__DLF__ACCESS_KEY_ID sets this one: `__` stands for a dot, `_` for a hyphen, as
in pyiceberg's variables.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from exporter.errors import UsageError, mask_url

Options = Mapping[str, str]
Catalogs = Mapping[str, Options]
"""Options by the catalog's name."""

KEY: Final = "paimon"
"""The file's table of catalogs: `[paimon.NAME]`."""

PREFIX: Final = "PAIMON_CATALOG__"
"""The prefix of the variables."""

SIDECARS: Final = "sidecars"
"""The one option of ours: the folder, or the store's URL, for a run's own files."""

_PUBLIC: Final = frozenset(
    {
        "data-token.enabled",
        "dlf.oss-endpoint",
        "dlf.region",
        "dlf.signing-algorithm",
        "dlf.token-ecs-metadata-url",
        "dlf.token-ecs-role-name",
        "dlf.token-loader",
        "dlf.token-path",
        "fs.oss.endpoint",
        "fs.oss.region",
        "metastore",
        "prefix",
        "s3.endpoint",
        "s3.path-style-access",
        "s3.region",
        SIDECARS,
        "token.provider",
        "uri",
        "warehouse",
    }
)
"""Options that may be shown. Any other may be a secret: catalogs take options unknown to us."""

_SPELLED: Final = {
    name.lower().replace("-", ""): name
    for name in ("fs.oss.accessKeyId", "fs.oss.accessKeySecret", "fs.oss.securityToken")
}
"""Options with capitals, which a variable cannot express."""

_MIN_HIDDEN: Final = 4
"""A shorter value is no secret, and masking it would garble any text."""


def fold_name(name: str) -> str:
    """The form of a catalog's name that the file and the environment share."""
    return name.lower().replace("_", "-")


def read_catalogs(tables: object, *, path: str) -> Catalogs:
    """The catalogs of the file's key `paimon`. Raises UsageError for a wrong type."""
    catalogs: dict[str, Options] = {}
    if not isinstance(tables, dict):
        raise _build_misuse(KEY, path)
    for name, options in tables.items():
        if not isinstance(options, dict):
            raise _build_misuse(f"{KEY}.{name}", path)
        if fold_name(name) in map(fold_name, catalogs):
            raise UsageError(
                f"{path} describes the catalog '{name}' twice",
                hint="capitals, and - for _, make no other name",
            )
        catalogs[name] = dict(_flatten(options, f"{KEY}.{name}", path))
    return catalogs


def merge_catalogs(catalogs: Catalogs, environ: Mapping[str, str]) -> Catalogs:
    """The catalogs of the file and the environment, which wins, by their folded names."""
    merged: dict[str, dict[str, str]] = {
        fold_name(name): dict(options) for name, options in catalogs.items()
    }
    for variable, value in environ.items():
        name, _, option = variable.removeprefix(PREFIX).partition("__")
        # Shells and CI systems pass an unset variable as an empty one.
        if variable.startswith(PREFIX) and name and option and value:
            merged.setdefault(fold_name(name), {})[_spell_option(option)] = value
    return merged


def find_options(name: str, catalogs: Catalogs, environ: Mapping[str, str]) -> Options:
    """The options of a catalog. Raises UsageError for an unknown one."""
    merged = merge_catalogs(catalogs, environ)
    options = merged.get(fold_name(name))
    if options is not None:
        return options
    known = ", ".join(sorted(merged))
    variable = f"{PREFIX}{name.upper().replace('-', '_')}__WAREHOUSE"
    raise UsageError(
        f"no Paimon catalog is called '{name}'",
        hint=f"there is {known}"
        if known
        else f"describe it as [{KEY}.{name}] in the file of --config, or by {variable}",
    )


def is_public(option: str) -> bool:
    return option in _PUBLIC


def mask_option(option: str, value: str) -> str:
    """The value, or its public part."""
    if not is_public(option):
        return "***"
    return mask_url(value) if "://" in value else value


def hide_secrets(text: str, options: Options) -> str:
    """A text, such as a library's error, with the secrets of these options masked."""
    # The longest first: it may hold a shorter one.
    for option, value in sorted(options.items(), key=lambda each: -len(each[1])):
        shown = mask_option(option, value)
        if shown != value and (is_public(option) or len(value) >= _MIN_HIDDEN):
            text = text.replace(value, shown)
    return text


def _flatten(options: Mapping[str, object], at: str, path: str) -> Iterator[tuple[str, str]]:
    """Names and texts of options: TOML reads `dlf.region = …` as a table in a table."""
    for name, value in options.items():
        match value:
            case dict():
                for inner, text in _flatten(value, f"{at}.{name}", path):
                    yield f"{name}.{inner}", text
            case bool():
                yield name, str(value).lower()
            case str() | int() | float():
                yield name, str(value)
            case _:
                raise _build_misuse(f"{at}.{name}", path)


def _build_misuse(key: str, path: str) -> UsageError:
    return UsageError(
        f"'{key}' in {path} is no table of options",
        hint=f"write [{KEY}.NAME], and below it a line an option, such as"
        ' warehouse = "/data/warehouse"',
    )


def _spell_option(text: str) -> str:
    option = ".".join(part.lower().replace("_", "-") for part in text.split("__"))
    return _SPELLED.get(option.replace("-", ""), option)
