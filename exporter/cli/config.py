"""The commands `config show` and `config schema`."""

import argparse
import os
from collections.abc import Mapping

from exporter.api.connect import resolve_endpoint
from exporter.api.credentials import read_environment_credential
from exporter.api.proxy import find_proxy
from exporter.cli.runner import read_settings
from exporter.errors import CredentialsError, UsageError, printable
from exporter.settings.catalogs import merge_catalogs
from exporter.settings.dump import build_json_schema, dump_catalogs, dump_toml
from exporter.settings.load import Loaded
from exporter.settings.settings import Settings
from exporter.ui.errors import ErrorReporter
from exporter.ui.stdout import print_json, print_text


def run(arguments: argparse.Namespace, reporter: ErrorReporter) -> int:
    match arguments.command:
        case "config show":
            show_config(read_settings(arguments, reporter), environ=os.environ)
        case "config schema":
            print_json(build_json_schema())
        case _:
            raise UsageError(
                f"{arguments.parser.prog} needs to know what",
                hint="say `config show` or `config schema`",
            )
    return 0


def show_config(loaded: Loaded, *, environ: Mapping[str, str]) -> None:
    """Print the settings as TOML, with identity and endpoint as comments; secrets are masked."""
    try:
        service = resolve_endpoint(loaded.settings, environ=environ)
    except UsageError as exc:
        endpoint = f"{exc} ({exc.hint})"
    else:
        endpoint = f"{service.endpoint} (region {service.region_id})"
        endpoint += proxy_text(service.endpoint, environ=environ)
    identity = describe_identity(loaded.settings, environ=environ)
    paimon = dump_catalogs(merge_catalogs(loaded.settings.paimon, environ))
    comments = f"# identity: {printable(identity)}\n# endpoint: {printable(endpoint)}\n"
    print_text(f"{dump_toml(loaded)}\n{comments}{paimon}")


def proxy_text(endpoint: str, *, environ: Mapping[str, str]) -> str:
    """The text that names the proxy after an endpoint; empty without one."""
    try:
        proxy = find_proxy(endpoint, environ=environ)
    except UsageError as exc:
        return f", {exc}"
    return "" if proxy is None else f", through the proxy {proxy.url} of {proxy.variable}"


def describe_identity(settings: Settings, *, environ: Mapping[str, str]) -> str:
    if settings.profile is not None:
        return f"profile {settings.profile} of the aliyun CLI"
    try:
        credential = read_environment_credential(environ)
    except CredentialsError as exc:
        return f"{exc} ({exc.hint})"
    if credential is None:
        return "the default credential chain (profile, role)"
    token = "" if credential.security_token is None else ", with a security token"
    return f"access key {credential.access_key_id[:4]}*** of the environment, secret ***{token}"
