"""What S3 and botocore say when they fail, as errors of ours that tell what to do."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.exceptions import ClientError

from opsproof.errors import BucketMissing, ConfigurationError, OpsproofError, StoreDenied, StoreError, StoreUnreachable
from opsproof.system.store.s3_actions import ACTIONS, is_about_bucket, verb_of

_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
)
_CHAIN = "variables, web identity, the shared credentials and config files, container and instance roles"


@dataclass(frozen=True)
class Place:
    """Where a request went, as far as a message needs it. `endpoint` holds no user and password."""

    bucket: str
    prefix: str
    region: str
    endpoint: str | None = None

    @property
    def server(self) -> str:
        """Return the endpoint as a person would name it."""
        return self.endpoint or f"https://s3.{self.region}.amazonaws.com"

    def url(self, name: str = "") -> str:
        """Return `s3://bucket/prefix/name`."""
        return f"s3://{self.bucket}/{self.prefix}{name}"

    def command(self, words: str) -> str:
        """Return a command of the AWS client that talks to this place."""
        endpoint = f" --endpoint-url {self.endpoint}" if self.endpoint else ""
        return f"aws{endpoint} --region {self.region} {words}"


def code_of(error: BaseException) -> str:
    """Return S3's error code; for an answer without a body (HEAD) its status."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def status_of(error: BaseException) -> int:
    """Return the HTTP status of S3's answer, 0 where there was none."""
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


REFUSALS = {
    "InvalidArgument",
    "InvalidRequest",
    "MalformedXML",
    "MissingContentLength",
    "NotImplemented",
    "UnsupportedOperation",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
    "501",
}
"""How servers answer to a header of S3 that they do not know."""
_UNKNOWN = {"NotImplemented", "UnsupportedOperation", "MethodNotAllowed", "501", "405"}


def is_unknown_there(error: BaseException) -> bool:
    """Tell whether the server says that it does not know such a request."""
    return code_of(error) in _UNKNOWN


def explain(error: Exception, place: Place, name: str = "") -> OpsproofError:
    """Return the error of ours that says what botocore's means.

    Args:
        error: What botocore raised.
        place: Where the request went.
        name: The object that it was about, relative to the store's location.
    """
    if isinstance(error, ClientError):
        return _explain_answer(error, place, name)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return _no_credentials("no AWS credentials were found", str(error))
    if isinstance(
        error,
        boto.CredentialRetrievalError
        | boto.TokenRetrievalError
        | boto.SSOError
        | boto.UnauthorizedSSOTokenError
        | boto.MetadataRetrievalError,
    ):
        return _no_credentials("AWS credentials could not be fetched", str(error))
    if isinstance(error, boto.ParamValidationError):
        return ConfigurationError(
            f"S3 cannot be asked for {place.url(name)} as configured",
            expected="a bucket's name, or its access point's ARN, and options that S3 knows",
            found=_plain(error),
            kept="nothing was sent",
            hint="export S3_BUCKET=my-backups   (letters, digits, dots and dashes)",
        )
    if isinstance(error, boto.HTTPClientError | boto.ConnectionError | boto.IncompleteReadError | OSError):
        return _unreachable(error, place)
    return StoreError(
        f"the S3 store failed at {place.url(name)}",
        expected=f"an answer of {place.server}",
        found=_plain(error),
        kept="nothing new is in the store",
        hint=place.command(f"s3 ls {place.url()}"),
    )


def _no_credentials(summary: str, found: str) -> StoreDenied:
    present = [name for name in _VARIABLES if os.environ.get(name)]
    return StoreDenied(
        summary,
        expected=f"credentials from boto3's chain: {_CHAIN}",
        found=f"{found} (set here: {', '.join(present) or 'none of AWS_*'})",
        kept="nothing was sent",
        hint="export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...   or: export AWS_PROFILE=...",
    )


def _unreachable(error: Exception, place: Place) -> StoreUnreachable:
    return StoreUnreachable(
        f"the S3 store at {place.server} did not answer",
        expected=f"an answer of {place.server} (bucket {place.bucket}, region {place.region})",
        found=_plain(error),
        kept="nothing new is in the store",
        hint=f"curl -sSI {place.server}   then check S3_ENDPOINT_URL, AWS_REGION, HTTPS_PROXY",
    )


def _explain_answer(error: ClientError, place: Place, name: str) -> OpsproofError:
    code, status = code_of(error), status_of(error)
    found = f"{place.server} answered {error.operation_name} with {status} {code}: {_message(error)}"
    if code in ("NoSuchBucket", "InvalidBucketName"):
        return bucket_missing(place, ())
    if code == "SignatureDoesNotMatch":
        return _denied_key(place, found, "the secret does not belong to the access key", "AWS_SECRET_ACCESS_KEY")
    if code in ("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"):
        return _denied_key(place, found, "the access key is not known there", "AWS_ACCESS_KEY_ID")
    if code in ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"):
        return _denied_key(place, found, "the session token has expired", "AWS_SESSION_TOKEN")
    if code == "InvalidToken":
        return _denied_key(place, found, "the session token is not valid", "AWS_SESSION_TOKEN")
    if code == "RequestTimeTooSkewed":
        return StoreDenied(
            "this machine's clock is wrong, so S3 refuses its signatures",
            expected="a clock within 15 minutes of the store's",
            found=found,
            kept="nothing new is in the store",
            hint="timedatectl set-ntp true && timedatectl",
        )
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"):
        return _other_region(error, place, found)
    if status == 403 or code in ("AccessDenied", "AllAccessDisabled", "AccountProblem"):
        return _denied_action(error, place, name, found)
    if code in ("NoSuchKey", "404", "NoSuchVersion"):
        return StoreError(
            f"{name} is not in the store",
            expected=place.url(name),
            found="no such object",
            kept="nothing was changed",
            hint=place.command(f"s3 ls {place.url()}"),
        )
    if code in ("PreconditionFailed", "412") and error.operation_name == "GetObject":
        return StoreError(
            f"{name} was replaced while it was read",
            expected=f"{place.url(name)} to stay as it is",
            found="another object under that name",
            kept="nothing was changed",
            hint=place.command(f"s3 ls {place.url(name)}"),
        )
    if code == "InvalidObjectState":
        return StoreError(
            f"{name} is in cold storage and cannot be read as it is",
            expected=f"{place.url(name)} in a storage class that can be read at once",
            found=found,
            kept="nothing was changed",
            hint=place.command(
                f"s3api restore-object --bucket {place.bucket} --key {shlex.quote(place.prefix + name)}"
                " --restore-request Days=7"
            ),
        )
    return StoreError(
        f"the S3 store failed at {place.url(name)}",
        expected=f"{error.operation_name} to succeed",
        found=found,
        kept="nothing new is in the store",
        hint=place.command(f"s3 ls {place.url()}") + "   then run it again",
    )


def _denied_key(place: Place, found: str, why: str, variable: str) -> StoreDenied:
    return StoreDenied(
        f"the S3 store refused the credentials: {why}",
        expected=f"credentials that {place.server} accepts, from boto3's chain: {_CHAIN}",
        found=found,
        kept="nothing new is in the store",
        hint=f"export {variable}=...   then see whose they are: {place.command('sts get-caller-identity')}",
    )


def _denied_action(error: ClientError, place: Place, name: str, found: str) -> StoreDenied:
    action = ACTIONS.get(error.operation_name, f"s3:{error.operation_name}")
    # Where the key is KMS's, or a version is meant, S3's own message names the action better.
    named = re.search(r"\b(?:s3|kms):[A-Z][A-Za-z]+", _message(error))
    action = named.group() if named else action
    resource = f"arn:aws:s3:::{place.bucket}"
    if not is_about_bucket(action):
        resource += f"/{place.prefix}{name or '*'}"
    return StoreDenied(
        f"{verb_of(action)} {place.url(name)} was refused: {action} is not allowed",
        expected=f"credentials that may {action} on {resource}",
        found=found,
        kept="nothing new is in the store",
        hint=f"allow {action} on {resource} to: {place.command('sts get-caller-identity')}",
    )


def _other_region(error: ClientError, place: Place, found: str) -> StoreError:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    details: dict[str, object] = {**error.response.get("Error", {})}
    region = headers.get("x-amz-bucket-region") or details.get("Region")
    location = urlsplit(headers.get("location", ""))
    if location.netloc and not region:
        return StoreError(
            f"{place.server} is not the S3 store itself: it redirects",
            expected=f"an S3 server at {place.server}",
            found=f"{found} (it points to {location.scheme}://{location.netloc})",
            kept="nothing new is in the store",
            hint=f"export S3_ENDPOINT_URL={location.scheme}://{location.netloc}",
        )
    return StoreError(
        f"the bucket {place.bucket} is in another region than {place.region}",
        expected=f"{place.bucket} in {place.region}",
        found=found,
        kept="nothing new is in the store",
        hint=f"export AWS_REGION={region or 'the-right-region'}",
    )


def bucket_missing(place: Place, nearest: tuple[str, ...]) -> BucketMissing:
    """Return the error of a bucket that is not there.

    Args:
        place: Where it was looked for.
        nearest: Buckets that are there and have a like name, the nearest first.
    """
    others = f"; there is {', '.join(nearest)}" if nearest else ""
    name = nearest[0] if nearest else "the-right-bucket"
    return BucketMissing(
        f"there is no bucket {place.bucket} in {place.region}",
        expected=f"a bucket {place.bucket} at {place.server}",
        found=f"no such bucket{others}",
        kept="nothing was sent",
        hint=f"export S3_BUCKET={name}   or: {place.command(f's3 mb s3://{place.bucket}')}",
    )


def _message(error: ClientError) -> str:
    return _plain(Exception(error.response.get("Error", {}).get("Message") or "no message"))


def _plain(error: Exception) -> str:
    """Return a message on one line, without the user and password that a proxy's or endpoint's URL may hold."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1", text)[:500]
