"""Translates aiohttp's errors, which no other module knows, to NetworkError with a remedy."""

import os
from dataclasses import dataclass

import aiohttp

from exporter.api.proxy import Proxy
from exporter.errors import NetworkError, ProxyRefusedError, mask_urls


@dataclass(frozen=True, slots=True)
class Route:
    host: str
    """Of the service, with its port, as in the Host header."""
    proxy: Proxy | None
    timeout_s: float

    @property
    def through(self) -> str:
        return "" if self.proxy is None else f" through the proxy {self.proxy.url}"


def translate(error: Exception, *, label: str, route: Route, answered: bool) -> NetworkError:
    """The NetworkError for a failure of the request `label`; `answered` is True once the service
    has answered any request.
    """
    if route.proxy is not None:
        of_proxy = translate_proxy(error, label=label, host=route.host, proxy=route.proxy)
        if of_proxy is not None:
            return of_proxy
    return translate_connection(error, label=label, route=route) or translate_answer(
        error, label=label, route=route, answered=answered
    )


def translate_proxy(
    error: Exception, *, label: str, host: str, proxy: Proxy
) -> NetworkError | None:
    """The error for a failure of the proxy itself; None for any other."""
    subject = f"{label}: the proxy {proxy.url}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        if error.status == 407:
            return ProxyRefusedError(
                f"{subject} wants to know who asks (HTTP 407)",
                hint=f"give {proxy.variable} the right user and password: USER:PASSWORD@ in front"
                " of the host, special signs percent-encoded",
            )
        if error.status < 500:
            return ProxyRefusedError(
                f"{subject} does not let requests to {host} through (HTTP {error.status})",
                hint=f"{proxy.variable} names it: have it allow {host}, or name that in NO_PROXY",
            )
        return NetworkError(
            f"{subject} cannot reach {host} (HTTP {error.status})",
            hint=f"check --endpoint, and the proxy that {proxy.variable} names",
            unreachable=True,
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NetworkError(
            f"{subject} cannot be found: unknown host",
            hint=f"check the host in {proxy.variable}",
            unreachable=True,
        )
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return NetworkError(
            f"{subject} cannot be connected to: {explain(error)}",
            hint=f"check the host and the port in {proxy.variable}, and that the proxy runs",
            unreachable=True,
        )
    return None


def translate_connection(error: Exception, *, label: str, route: Route) -> NetworkError | None:
    """The error for a failed connection to the service; None for a later failure."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return NetworkError(
            f"{label}: {error.host if route.proxy is not None else route.host} shows no valid"
            f" certificate{route.through}",
            hint="check --endpoint and this machine's CA certificates",
            unreachable=True,
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NetworkError(
            f"{label}: unknown host {route.host}",
            hint="check --region and --endpoint; the VPC host is --network vpc",
            unreachable=True,
        )
    if isinstance(error, TimeoutError):
        return NetworkError(
            f"{label}: no answer from {route.host}{route.through} within {route.timeout_s:g}s",
            hint="raise --timeout, or check the network",
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return NetworkError(
            f"{label}: cannot connect to {route.host}{route.through}: {explain(error)}",
            hint="check --endpoint and the network",
            unreachable=True,
        )
    return None


def translate_answer(error: Exception, *, label: str, route: Route, answered: bool) -> NetworkError:
    # aiohttp's parser raises this for bytes that are not HTTP; later in a run, for a broken answer.
    is_no_http = isinstance(error, aiohttp.ClientResponseError) and error.status == 400
    if is_no_http and not answered:
        who = route.host if route.proxy is None else f"the proxy {route.proxy.url}, or the host"
        where = "--endpoint" if route.proxy is None else route.proxy.variable
        return NetworkError(
            f"{label}: {who} does not speak HTTP",
            hint=f"check {where}: https:// or http://, and the port",
            unreachable=True,
        )
    reason = mask_urls(" ".join(str(error).split())) or type(error).__name__
    return NetworkError(
        f"{label}: the answer of {route.host}{route.through} broke off: {reason}",
        hint="check the network",
    )


def explain(error: aiohttp.ClientConnectorError) -> str:
    number = error.os_error.errno
    return os.strerror(number) if number is not None else mask_urls(str(error.os_error))
