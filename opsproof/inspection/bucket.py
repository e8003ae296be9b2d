"""Whether the bucket that backups go to is set up as the inventory asks: looked at, never touched."""

from __future__ import annotations

from dataclasses import dataclass

from opsproof.errors import ProofError
from opsproof.inspection.finding import Finding
from opsproof.policies import BucketExpectations
from opsproof.system.store import BucketSettings, Store

_ENCRYPTION = '{"Rules":[{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"AES256"}}]}'
_BLOCKS = "BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true"


@dataclass(frozen=True)
class _Setting:
    """One setting: what a person calls it, who tells it, and which words of `aws s3api` set and end it.

    A setting that cannot be ended has another hint there, without a command.
    """

    title: str
    told_by: str
    set_by: str
    ended_by: str


_SETTINGS = {
    "versioning": _Setting(
        "versioning",
        "GetBucketVersioning",
        "put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Enabled",
        "put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Suspended",
    ),
    "encryption": _Setting(
        "encryption at rest",
        "GetBucketEncryption",
        f"put-bucket-encryption --bucket {{bucket}} --server-side-encryption-configuration '{_ENCRYPTION}'",
        "delete-bucket-encryption --bucket {bucket}",
    ),
    "object_lock": _Setting(
        "Object Lock",
        "GetObjectLockConfiguration",
        "put-object-lock-configuration --bucket {bucket} --object-lock-configuration ObjectLockEnabled=Enabled",
        "",
    ),
    "lifecycle": _Setting(
        "a lifecycle",
        "GetBucketLifecycleConfiguration",
        "put-bucket-lifecycle-configuration --bucket {bucket} --lifecycle-configuration file://lifecycle.json",
        "delete-bucket-lifecycle --bucket {bucket}",
    ),
    "public_access_blocked": _Setting(
        "a block of public access",
        "GetPublicAccessBlock",
        f"put-public-access-block --bucket {{bucket}} --public-access-block-configuration {_BLOCKS}",
        "delete-public-access-block --bucket {bucket}",
    ),
}


def check_bucket(store: Store, expected: BucketExpectations) -> list[Finding]:
    """Return what is not as the inventory asks, which blocks, and what it does not ask about, which does not.

    A setting that the server does not tell blocks where it is asked for.

    Raises:
        StoreError: The store does not answer, or refuses the credentials.
    """
    settings = store.settings()
    asked = {name: getattr(expected, name) for name in _SETTINGS}
    if settings is None:
        return [
            Finding(
                subject=f"{_SETTINGS[name].title} of {store.location}",
                expected=_word(wanted),
                found="the store is a folder, which has no such setting",
                hint="set `store: {bucket: my-backups}` in the inventory, or take `store.expect` out",
                blocks=True,
            )
            for name, wanted in asked.items()
            if wanted is not None
        ]
    findings = (_look(settings, name, wanted) for name, wanted in asked.items())
    return [finding for finding in findings if finding is not None]


def require_bucket(store: Store, expected: BucketExpectations) -> tuple[Finding, ...]:
    """Make sure that the bucket is set up as the inventory asks. Return what it does not ask about.

    Raises:
        ProofError: It is not; all that is otherwise is in the error.
        StoreError: The store does not answer, or refuses the credentials.
    """
    findings = check_bucket(store, expected)
    wrong = [finding for finding in findings if finding.blocks]
    if wrong:
        raise ProofError(
            f"the store {store.location} is not set up as the inventory asks",
            expected="\n".join(f"{one.subject}: {one.expected}" for one in wrong),
            found="\n".join(f"{one.subject}: {one.found}" for one in wrong),
            kept="everything: a check only looks",
            hint="\n".join(one.hint for one in wrong),
        )
    return tuple(finding for finding in findings if not finding.blocks)


def _look(settings: BucketSettings, name: str, wanted: bool | None) -> Finding | None:
    setting, told = _SETTINGS[name], getattr(settings, name)
    if told is not None and told == wanted:
        return None
    if told is None:
        found = f"not told by this server ({settings.untold.get(name, 'no answer')})"
    else:
        found = f"{_word(told)}, says {setting.told_by}"
    words = setting.ended_by if wanted is False else setting.set_by
    hint = f"{settings.client} s3api {words.replace('{bucket}', settings.bucket)}"
    if not words:
        hint = f"{setting.title} cannot be ended: choose another bucket, or ask for `{name}: true` in the inventory"
    return Finding(
        subject=f"{setting.title} of s3://{settings.bucket}",
        expected="not asked about" if wanted is None else _word(wanted),
        found=found,
        hint=hint,
        blocks=wanted is not None,
    )


def _word(value: bool) -> str:
    return "on" if value else "off"
