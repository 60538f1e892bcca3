"""S3: the endpoint and the clients of a bucket, which stores with the same API use too."""

import re
from typing import TYPE_CHECKING, Final

from exporter.errors import UsageError, quote
from exporter.settings.endpoints import require_url
from exporter.stores.aws_identity import NO_IDENTITY, choose_aws_identity
from exporter.stores.client import (
    DELTA_TIMEOUTS,
    Clients,
    KeyCallback,
    build_client_options,
    build_retry_config,
)
from exporter.stores.error_map import ErrorMap
from exporter.stores.interface import DeltaOptions, StoreKind
from exporter.stores.multipart import OpenUploads
from exporter.stores.objects import ObjectStore
from exporter.stores.url import Address, Endpoint, KeySource, StoreAccess, place_bucket

if TYPE_CHECKING:
    from obstore.store import S3Store

AWS_REGION: Final = "us-east-1"
"""Where S3 is asked when nothing names a region, as by AWS's own tools."""
PERMISSIONS: Final = (
    "the identity needs s3:PutObject, s3:GetObject, s3:ListBucket, s3:DeleteObject,"
    " s3:AbortMultipartUpload and s3:ListBucketMultipartUploads"
)


def open_s3(address: Address, access: StoreAccess) -> ObjectStore:
    endpoint, fetch_key = choose_s3_access(address, access)
    errors = ErrorMap(
        bucket=address.bucket,
        endpoint=endpoint.url,
        no_identity=NO_IDENTITY,
        no_permission=PERMISSIONS,
        wrong_region="set AWS_REGION to the bucket's region",
    )
    return open_bucket(address, endpoint, access, fetch_key=fetch_key, errors=errors)


def choose_s3_access(address: Address, access: StoreAccess) -> tuple[Endpoint, KeySource | None]:
    fetch_key, region = choose_aws_identity(access.environ)
    return choose_s3_endpoint(address.bucket, access, region=region), fetch_key


def choose_s3_endpoint(bucket: str, access: StoreAccess, *, region: str | None) -> Endpoint:
    """By the AWS rules: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, else the region's own.

    An endpoint of the environment may be `http://` to anywhere: that is the user's AWS setup.
    Raises UsageError for one that is none, and for a region that can be none.
    """
    named = access.endpoint
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if not named and access.environ.get(variable):
            named = access.environ[variable]
            require_url(named, source=variable)
    at = region or AWS_REGION
    if re.fullmatch(r"[A-Za-z0-9-]{1,50}", at) is None:
        raise UsageError(f"{quote(at)} is no region of AWS", hint="correct AWS_REGION")
    base = named or f"https://s3.{at}.amazonaws.com{'.cn' if at.startswith('cn-') else ''}"
    # A certificate of *.HOST does not cover a bucket with a dot.
    by_path = access.addressing == "path" or (named is None and "." in bucket)
    return place_bucket(base, bucket, by_path=by_path, region=at)


def open_bucket(
    address: Address,
    endpoint: Endpoint,
    access: StoreAccess,
    *,
    fetch_key: KeySource | None,
    errors: ErrorMap,
    deletes_in_bulk: bool = True,
    create_headers: dict[str, str] | None = None,
) -> ObjectStore:
    """A bucket of any store that speaks the API of S3.

    `create_headers` make a write fail where there is an object, in a store that takes no notice of
    `If-None-Match`. Without `fetch_key` the client looks for a role.
    """
    from obstore.store import S3Store

    keys = None if fetch_key is None else KeyCallback(fetch_key, errors)

    def build(within_s: float, *, retries: int, headers: dict[str, str] | None) -> "S3Store":
        with errors.translated(address.url, doing="open"):
            return S3Store(
                address.bucket,
                config={
                    # Both: the second would come from the environment otherwise.
                    "endpoint": endpoint.url,
                    "aws_endpoint_url_s3": endpoint.url,
                    "region": endpoint.region,
                    "virtual_hosted_style_request": endpoint.is_virtual,
                    "disable_bulk_delete": not deletes_in_bulk,
                },
                client_options=build_client_options(
                    endpoint.url, within_s=within_s, headers=headers
                ),
                retry_config=build_retry_config(retries, within_s=within_s),
                credential_provider=keys,
            )

    def build_clients(within_s: float) -> Clients:
        plain = build(within_s, retries=access.retries, headers=None)
        if create_headers is None:
            return Clients(plain)
        # One attempt: a second could meet the object of the first, whose answer was lost.
        return Clients(plain, build(within_s, retries=0, headers=create_headers))

    uploads = None if fetch_key is None else OpenUploads(address, endpoint, fetch_key)
    return ObjectStore(address, build_clients=build_clients, errors=errors, uploads=uploads)


def choose_delta_options(address: Address, access: StoreAccess) -> DeltaOptions:
    """Without a key deltalake looks for a role, as the AWS rules say."""
    endpoint, fetch_key = choose_s3_access(address, access)
    options = {
        **DELTA_TIMEOUTS,
        # Entries of the log are created only where there is none.
        "AWS_CONDITIONAL_PUT": "etag",
        # Both: the second would come from the environment otherwise.
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_ENDPOINT_URL_S3": endpoint.url,
        "AWS_REGION": endpoint.region,
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": str(endpoint.is_virtual).lower(),
        "AWS_ALLOW_HTTP": str(endpoint.url.startswith("http://")).lower(),
    }

    def build() -> dict[str, str]:
        if fetch_key is None:
            return options
        key = fetch_key()
        return {
            **options,
            "AWS_ACCESS_KEY_ID": key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": key.access_key_secret,
            # Empty rather than away: the token of another key would come from the environment.
            "AWS_SESSION_TOKEN": key.security_token or "",
        }

    return build


KIND: Final = StoreKind(open_store=open_s3, choose_delta_options=choose_delta_options)
