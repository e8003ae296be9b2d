"""Which store a target's backups go to, and under whose name: from the inventory or from variables, never from a guess.

There is no default bucket: a dump must not go to a stranger's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from opsproof.errors import ConfigurationError
from opsproof.inventory.keeping import object_lock_of_host
from opsproof.inventory.schema import HostVariables, VariableSettings, fields_given
from opsproof.target import DirectoryStoreSettings, S3StoreSettings, StoreSettings

DEFAULT_REGION = "me-south-1"
"""The region where neither inventory nor variables name one: the seed's."""


@dataclass(frozen=True)
class ChosenStore:
    """A target's store, the customer it is kept under, and where each setting came from."""

    store: StoreSettings
    customer: str
    sources: Mapping[str, str]


def choose_store(
    target: str,
    own: HostVariables,
    variables: VariableSettings,
    *,
    folder: Path,
    where: Callable[..., str],
    fallback: Path | None = None,
) -> ChosenStore:
    """Choose a target's store and customer.

    Args:
        target: The target's name, for errors.
        own: Its host's variables.
        variables: The environment's.
        folder: What relative paths are relative to.
        where: `where(key, key below it)` -> the place in the inventory.
        fallback: The directory that serves where nothing names a store; None makes that an error.

    Raises:
        ConfigurationError: Nothing names a store, two places name different ones, or an S3 store has no customer.
    """
    bucket = own.store.bucket
    stated = {}
    if own.backup_dir is not None:
        stated[f"backup_dir in {where('backup_dir')}"] = own.backup_dir
    if bucket is not None:
        stated[f"store.bucket in {where('store', 'bucket')}"] = bucket
    if variables.S3_BUCKET is not None and bucket != variables.S3_BUCKET:
        stated["S3_BUCKET"] = variables.S3_BUCKET
    if len(stated) > 1:
        raise ConfigurationError(
            f"Two places name different stores for {target}",
            expected="one store",
            found="\n".join(f"{origin}: {name}" for origin, name in stated.items()),
            hint="unset S3_BUCKET" if "S3_BUCKET" in stated else "take backup_dir or store.bucket out",
        )
    if own.backup_dir is not None:
        _refuse_wishes_for_a_bucket(target, own, where)
        path = folder / Path(own.backup_dir).expanduser()
        return _in_directory(path, own, variables, where, {"store": where("backup_dir")})
    if bucket is None and variables.S3_BUCKET is None:
        if fallback is not None:
            return _in_directory(fallback, own, variables, where, {"store": "default"})
        raise ConfigurationError(
            f"Nothing says where the backups of {target} go",
            expected="a bucket or a directory; there is no default, so that no dump goes to a stranger's bucket",
            found="no S3_BUCKET, no store.bucket, no backup_dir",
            hint=f"export S3_BUCKET=NAME, or give {target} `store: {{bucket: NAME}}` or `backup_dir: PATH`",
        )
    return _in_bucket(target, own, variables, folder, where)


def _in_bucket(
    target: str, own: HostVariables, variables: VariableSettings, folder: Path, where: Callable[..., str]
) -> ChosenStore:
    given = dict(fields_given(own.store))
    sources = {f"store.{key}": where("store", key) for key in given}
    given.pop("expect", None)
    given["object_lock"] = object_lock_of_host(own)
    bucket = given.pop("bucket", None)
    if bucket is None:
        bucket = variables.S3_BUCKET
        sources["store.bucket"] = "S3_BUCKET"
    sources["store"] = sources["store.bucket"]
    region, sources["store.region"] = _first(
        (given.pop("region", None), sources.get("store.region", "")),
        (variables.AWS_REGION, "AWS_REGION"),
        (variables.AWS_DEFAULT_REGION, "AWS_DEFAULT_REGION"),
        (DEFAULT_REGION, "default"),
    )
    stated_url = given.pop("endpoint_url", None)
    if stated_url and variables.S3_ENDPOINT_URL and not _same_url(stated_url, variables.S3_ENDPOINT_URL):
        raise ConfigurationError(
            f"Two places name different S3 endpoints for {target}",
            expected="one endpoint",
            found=f"store.endpoint_url in {sources['store.endpoint_url']}, and S3_ENDPOINT_URL",
            hint="unset S3_ENDPOINT_URL",
        )
    endpoint_url = stated_url or variables.S3_ENDPOINT_URL
    if endpoint_url and not stated_url:
        sources["store.endpoint_url"] = "S3_ENDPOINT_URL"
    if given.get("kms_key_id") and given.get("encryption") != "aws:kms":
        raise ConfigurationError(
            f"store.kms_key_id of {target} has no effect",
            expected="encryption: aws:kms beside it",
            found="no encryption" if not given.get("encryption") else f"encryption: {given['encryption']}",
            hint=f"write `encryption: aws:kms` in {sources['store.kms_key_id']}, or take kms_key_id out",
        )
    if given.get("credentials_file"):
        given["credentials_file"] = _existing(folder, given["credentials_file"], sources["store.credentials_file"])
    customer, sources["customer"] = _first(
        (own.customer, where("customer") if own.customer else ""),
        (variables.CI_PROJECT_NAME, "CI_PROJECT_NAME"),
        ("", ""),
    )
    if not customer:
        raise ConfigurationError(
            f"Nothing says whose backups those of {target} are",
            expected="a customer: backups go to s3://BUCKET/CUSTOMER/backups/",
            found="no customer in the inventory, no CI_PROJECT_NAME",
            hint=f"give {target} `customer: NAME`, or export CI_PROJECT_NAME=NAME",
        )
    store = S3StoreSettings(bucket=bucket, region=region, endpoint_url=endpoint_url, **given)
    return ChosenStore(store, customer, sources)


def _refuse_wishes_for_a_bucket(target: str, own: HostVariables, where: Callable[..., str]) -> None:
    for key in ("object_lock", "expect"):
        if key in fields_given(own.store):
            raise ConfigurationError(
                f"store.{key} of {target} has no effect",
                expected="a bucket: a folder has neither locks nor settings",
                found=f"backup_dir in {where('backup_dir')}, store.{key} in {where('store', key)}",
                hint=f"take {key} or backup_dir out",
            )


def _in_directory(
    path: Path,
    own: HostVariables,
    variables: VariableSettings,
    where: Callable[..., str],
    sources: dict[str, str],
) -> ChosenStore:
    customer, sources["customer"] = _first(
        (own.customer, where("customer") if own.customer else ""),
        (variables.CI_PROJECT_NAME, "CI_PROJECT_NAME"),
        ("", "default"),
    )
    return ChosenStore(DirectoryStoreSettings(path.absolute()), customer, sources)


def _first(*choices: tuple[str | None, str]) -> tuple[str, str]:
    return next(((value, origin) for value, origin in choices if value), (choices[-1][0] or "", choices[-1][1]))


def _same_url(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def _existing(folder: Path, name: str, origin: str) -> str:
    path = (folder / Path(name).expanduser()).absolute()
    if not path.is_file():
        raise ConfigurationError(
            f"There is no credentials file {path}",
            expected="a file in the format of ~/.aws/credentials, on the machine that runs pytest",
            found="no such file",
            hint=f"correct store.credentials_file in {origin}, or take it out for boto3's own search",
        )
    return str(path)
