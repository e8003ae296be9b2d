"""The kinds of values that a host of the inventory may give, each with what is refused of it and why."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from opsproof.policies import SPAN_FORM, span_of

_USER = r"[^-:/\s][^:/\s]*"
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:[^\s]+")
_RECIPIENT = re.compile(r"age1[0-9a-z]{58}")
_PRIVATE = ("AGE-SECRET-KEY-", "-----BEGIN")
_VERSION = re.compile(r"[1-9][0-9]?(\.[0-9]{1,2})?")
_DELETION = re.compile(r"(delete\s+from|with)\b.*\bwhere\b", re.IGNORECASE | re.DOTALL)
_ASIDE = re.compile(r"'[^']*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_MOST_SPAN = timedelta(days=36_525)
_LEAST_OF_A_NAME = 3


def as_list(value: object) -> object:
    """Return a text as a list of one: a person leaves the brackets out."""
    return [value] if isinstance(value, str) else value


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must be an absolute path")
    return path


def _bucket(name: str) -> str:
    if not _BUCKET.fullmatch(name):
        raise ValueError("must be a bucket's name alone, without s3:// and without a path (that is store.prefix)")
    return name


def _http(url: str) -> str:
    if not re.match(r"https?://[^/\s]", url):
        raise ValueError("must begin with http:// or https://")
    return url


def _name_in_a_path(name: str) -> str:
    name = name.strip()
    if not name or "/" in name or ".." in name or name == "." or not name.isprintable():
        raise ValueError("must be a name without '/', '..' and control characters")
    return name


def _folder_of_bucket(prefix: str) -> str:
    words = prefix.strip("/").split("/")
    if ".." in words or "" in words[1:] or not prefix.isprintable():
        raise ValueError("must be a path in the bucket without '..', '//' and control characters")
    return f"{prefix.strip('/')}/" if prefix.strip("/") else ""


def _health(url: str) -> str:
    if "@" in url.split("/")[2]:
        raise ValueError("must have neither user nor password: it is shown in reports")
    return url


def _service_name(name: str) -> str:
    # `group:*` is supervisor's; any other pattern would take in services of somebody else's.
    if name.startswith("-") or re.search(r"[\s*?\[]", name.removesuffix(":*")):
        raise ValueError("must be the name of one service, without blanks and without a pattern")
    return name


def _program(path: str) -> str:
    return path if path == "none" else _absolute(path)


def _column(name: str) -> str:
    if name.count(".") not in (1, 2):
        raise ValueError("must be table.column, or schema.table.column")
    return name


def _text(value: object) -> object:
    # A person writes `expected: 0` and `DEBUG: true`.
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _user(user: str) -> str:
    if not re.fullmatch(_USER, user):
        raise ValueError("must be the name of a user")
    return user


def _owner(owner: str) -> str:
    if not re.fullmatch(f"{_USER}(:{_USER})?", owner):
        raise ValueError("must be a user, or user:group")
    return owner


def _supervisors(path: str, info: ValidationInfo) -> str:
    if info.data.get("service_manager") == "systemd":
        raise ValueError("is for supervisor: add `service_manager: supervisor`, or take it out")
    return path


def _below_a_release(path: str) -> str:
    words = path.rstrip("/").split("/")
    if not {"", ".", ".."}.isdisjoint(words) or not path.isprintable():
        raise ValueError("must be a path below the release, without '..': config/.env, log/")
    return path


def _span(value: object) -> timedelta:
    if not isinstance(value, str):
        raise ValueError(f"must be {SPAN_FORM}")
    span = span_of(value)
    if not timedelta() < span <= _MOST_SPAN:
        raise ValueError("must be more than nothing, and at most 100y")
    return span


def _number(value: object) -> object:
    # To pydantic, true is the number 1.
    if isinstance(value, bool):
        raise ValueError("must be a number, not a switch")
    return value


def _recipient(key: str) -> str:
    if key.strip().upper().startswith(_PRIVATE):
        raise ValueError(
            "is a private key, which belongs into identity_file: write its public one, `age-keygen -y FILE`"
        )
    if not _RECIPIENT.fullmatch(key):
        raise ValueError("must be age's public key, age1 and 58 small letters and digits, as age-keygen prints it")
    return key


def _key_file(path: str) -> str:
    if path.strip().upper().startswith(_PRIVATE):
        raise ValueError("must be the path of the file that the key is in, not the key itself")
    if not path.strip() or not path.isprintable():
        raise ValueError("must be a file's path, without control characters")
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError("begins with the home of an account that this machine does not have") from None
    return path


def _version(version: str) -> str:
    if not _VERSION.fullmatch(version):
        raise ValueError("must be a version as PostgreSQL counts them, as in 15.8")
    return version


def _pattern(pattern: str) -> str:
    schema, dot, table = pattern.rpartition(".")
    if "." in schema or (dot and not schema) or not pattern.isprintable():
        raise ValueError("must be table or schema.table, with * and ? for what differs")
    # What it matches is dropped: one like `*` or `a*` would take the application's own tables.
    if sum(letter.isalnum() for letter in table) < _LEAST_OF_A_NAME:
        raise ValueError(f"must have at least {_LEAST_OF_A_NAME} letters or digits of the table's name")
    return pattern


def _deletion(sql: str) -> str:
    # What stands in a literal or a comment is no part of the statement's shape.
    bare = _ASIDE.sub(" ", sql).strip().removesuffix(";")
    if ";" in bare:
        raise ValueError("must be one statement; give several as a list")
    if not _DELETION.match(bare):
        raise ValueError("must be DELETE FROM ... WHERE ...; for all rows of a table, WHERE true")
    return sql.strip().removesuffix(";").rstrip()


def _ping(url: str) -> str:
    if not url.isprintable() or " " in url:
        raise ValueError("must be a URL without blanks and control characters")
    return url


Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(as_list)]
WrittenText = Annotated[str, BeforeValidator(_text)]
Absolute = Annotated[str, AfterValidator(_absolute)]
Program = Annotated[str, AfterValidator(_program)]
SupervisorFile = Annotated[Absolute, AfterValidator(_supervisors)]
Web = Annotated[str, AfterValidator(_http)]
BucketName = Annotated[str, AfterValidator(_bucket)]
Prefix = Annotated[str, AfterValidator(_folder_of_bucket)]
HealthPage = Annotated[Web, AfterValidator(_health)]
ServiceName = Annotated[Text, AfterValidator(_service_name)]
ColumnName = Annotated[Text, AfterValidator(_column)]
CustomerName = Annotated[str, AfterValidator(_name_in_a_path)]
User = Annotated[str, AfterValidator(_user)]
Owner = Annotated[str, AfterValidator(_owner)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Span = Annotated[timedelta, BeforeValidator(_span)]
Count = Annotated[int, BeforeValidator(_number), Field(ge=0, le=1_000_000)]
Below = Annotated[tuple[Annotated[str, AfterValidator(_below_a_release)], ...], BeforeValidator(as_list)]
KeptReleases = Annotated[int, BeforeValidator(_number), Field(ge=1, le=1_000)]
Days = Annotated[int, BeforeValidator(_number), Field(ge=1, le=36_500)]
Bytes = Annotated[int, BeforeValidator(_number), Field(gt=0, le=2**63 - 1)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
Recipients = Annotated[
    tuple[Annotated[str, AfterValidator(_recipient)], ...], BeforeValidator(as_list), Field(min_length=1)
]
KeyFile = Annotated[str, AfterValidator(_key_file)]
ServerVersion = Annotated[str, AfterValidator(_version)]
TablePatterns = Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], BeforeValidator(as_list)]
Deletions = Annotated[tuple[Annotated[str, AfterValidator(_deletion)], ...], BeforeValidator(as_list)]
PingUrl = Annotated[Web, AfterValidator(_ping)]


class Ours(BaseModel):
    """A mapping of ours: no key that it does not know."""

    # Values never show in errors: some are secret.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
