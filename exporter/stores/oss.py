"""Alibaba Cloud OSS: reached by its S3 API, with the identity and the region of the API calls."""

import re
from typing import Final

from exporter.errors import CredentialsError, UsageError
from exporter.stores.error_map import ErrorMap
from exporter.stores.interface import DeltaOptions, StoreKind
from exporter.stores.objects import ObjectStore
from exporter.stores.s3 import open_bucket
from exporter.stores.url import Address, Endpoint, KeySource, StoreAccess, place_bucket

NO_IDENTITY: Final = (
    "oss:// uses the identity of the API calls: check its key, or name another with --profile"
)
PERMISSIONS: Final = (
    "the RAM policy needs oss:PutObject, oss:GetObject, oss:ListObjects, oss:DeleteObject,"
    " oss:AbortMultipartUpload, oss:ListParts and oss:ListMultipartUploads on the bucket and on"
    " its objects"
)


def open_oss(address: Address, access: StoreAccess) -> ObjectStore:
    fetch_key = require_identity(address, access)
    endpoint = choose_oss_endpoint(address.bucket, access)
    errors = ErrorMap(
        bucket=address.bucket,
        endpoint=endpoint.url,
        no_identity=NO_IDENTITY,
        no_permission=PERMISSIONS,
    )
    return open_bucket(
        address,
        endpoint,
        access,
        fetch_key=fetch_key,
        errors=errors,
        # A bulk deletion needs a Content-MD5, which the client does not send.
        deletes_in_bulk=False,
        create_headers={"x-oss-forbid-overwrite": "true"},
    )


def require_identity(address: Address, access: StoreAccess) -> KeySource:
    if access.fetch_key is None:
        raise CredentialsError(f"no identity for '{address.url}'")
    return access.fetch_key


def choose_oss_endpoint(bucket: str, access: StoreAccess) -> Endpoint:
    """Raises UsageError when no region is known."""
    if access.region_id is None:
        raise UsageError(
            f"no region for oss://{bucket}", hint="name it with --region, such as cn-hangzhou"
        )
    internal = "-internal" if access.network == "vpc" else ""
    base = access.endpoint or f"https://s3.oss-{access.region_id}{internal}.aliyuncs.com"
    by_path = access.addressing == "path"
    return place_bucket(base, bucket, by_path=by_path, region=access.region_id)


def choose_delta_options(address: Address, access: StoreAccess) -> DeltaOptions:
    """For OSS's own API, which knows how to create an object only where there is none."""
    fetch_key = require_identity(address, access)
    endpoint = choose_oss_endpoint(address.bucket, access)
    # The library puts the bucket in front itself, and speaks to no S3 endpoint of OSS.
    url = endpoint.url.replace(f"://{address.bucket}.", "://", 1)
    url = re.sub(r"(?<=://)s3\.(?=oss-)", "", url)

    def build() -> dict[str, str]:
        key = fetch_key()
        return {
            "opendal.endpoint": url,
            "opendal.addressing_style": "virtual" if endpoint.is_virtual else "path",
            "opendal.access_key_id": key.access_key_id,
            "opendal.access_key_secret": key.access_key_secret,
            "opendal.security_token": key.security_token or "",
        }

    return build


KIND: Final = StoreKind(open_store=open_oss, choose_delta_options=choose_delta_options)
