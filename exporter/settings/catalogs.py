"""Catalogs of Paimon tables as the file and the environment describe them; performs no I/O.

Options have the names that Paimon's own manuals give them, such as `dlf.access-key-id`. In the
environment PAIMON_CATALOG__NAME__DLF__ACCESS_KEY_ID sets this one: `__` stands for a dot, `_` for a
hyphen, as in pyiceberg's variables.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from exporter.errors import UsageError, mask_url

Options = Mapping[str, str]
Catalogs = Mapping[str, Options]
"""Options by the catalog's name."""

KEY: Final = "paimon"
"""Of the file's tables: `[paimon.NAME]`."""

PREFIX: Final = "PAIMON_CATALOG__"
"""How the names of variables begin."""

SIDECARS: Final = "sidecars"
"""The one option that is ours: where a run keeps its own files, as a folder or a store's URL."""

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
"""What may be shown. Any other option may be a secret: nobody knows all that a catalog takes."""

_SPELLED: Final = {
    name.lower().replace("-", ""): name
    for name in ("fs.oss.accessKeyId", "fs.oss.accessKeySecret", "fs.oss.securityToken")
}
"""Options that have capitals, which a variable cannot tell."""

_MIN_HIDDEN: Final = 4
"""A shorter value is no secret, and would be found in any text."""


def fold_name(name: str) -> str:
    """A catalog's name as the file and the environment have it in common."""
    return name.lower().replace("_", "-")


def read_catalogs(tables: object, *, path: str) -> Catalogs:
    """What the file's key `paimon` holds. Raises UsageError for what is no table of options."""
    found: dict[str, Options] = {}
    if not isinstance(tables, dict):
        raise _build_misuse(KEY, path)
    for name, options in tables.items():
        if not isinstance(options, dict):
            raise _build_misuse(f"{KEY}.{name}", path)
        if fold_name(name) in map(fold_name, found):
            raise UsageError(
                f"{path} describes the catalog '{name}' twice",
                hint="capitals, and - for _, make no other name",
            )
        found[name] = dict(_flatten(options, f"{KEY}.{name}", path))
    return found


def merge_catalogs(catalogs: Catalogs, environ: Mapping[str, str]) -> Catalogs:
    """The file's catalogs with what the environment sets, which wins; by folded names."""
    merged: dict[str, dict[str, str]] = {
        fold_name(name): dict(options) for name, options in catalogs.items()
    }
    for variable, value in environ.items():
        name, _, option = variable.removeprefix(PREFIX).partition("__")
        # An empty variable is how shells and CI systems say "not set".
        if variable.startswith(PREFIX) and name and option and value:
            merged.setdefault(fold_name(name), {})[_spell_option(option)] = value
    return merged


def find_options(name: str, catalogs: Catalogs, environ: Mapping[str, str]) -> Options:
    """The options of a catalog. Raises UsageError for one that nothing describes."""
    merged = merge_catalogs(catalogs, environ)
    found = merged.get(fold_name(name))
    if found is not None:
        return found
    known = ", ".join(sorted(merged))
    variable = f"{PREFIX}{name.upper().replace('-', '_')}__WAREHOUSE"
    raise UsageError(
        f"no Paimon catalog is called '{name}'",
        hint=f"there is {known}"
        if known
        else f"describe it as [{KEY}.{name}] in the file of --config, or by {variable}",
    )


def is_public(option: str) -> bool:
    """Whether the value may be shown."""
    return option in _PUBLIC


def mask_option(option: str, value: str) -> str:
    """The value as it may be shown."""
    if not is_public(option):
        return "***"
    return mask_url(value) if "://" in value else value


def hide_secrets(text: str, options: Options) -> str:
    """A text, such as a library's error, without what must not be shown of these options."""
    # A long value may hold a short one.
    for option, value in sorted(options.items(), key=lambda each: -len(each[1])):
        shown = mask_option(option, value)
        if shown != value and (is_public(option) or len(value) >= _MIN_HIDDEN):
            text = text.replace(value, shown)
    return text


def _flatten(options: Mapping[str, object], at: str, path: str) -> Iterator[tuple[str, str]]:
    """TOML reads `dlf.region = …` as a table in a table; numbers and booleans are texts here."""
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
