"""OSS: the endpoint by which a bucket is reached."""

from exporter.errors import UsageError
from exporter.stores.url import Endpoint, StoreAccess, place_bucket


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
