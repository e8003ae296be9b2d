"""What a host of the inventory may say, validated: the only place where the inventory's own data has no type yet.

A variable that is not one of ours belongs to somebody else and is left alone, because an existing inventory has many;
but one that nearly is ours, where ours is missing, is taken for the slip of the pen that it most likely is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from opsproof.errors import ConfigurationError

_NEAR = 0.85
_USER = r"[^-:/\s][^:/\s]*"
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:[^\s]+")


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


def _prefix(prefix: str) -> str:
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


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _services(value: object) -> object:
    listed = _listed(value)
    return [{"name": one} if isinstance(one, str) else one for one in listed] if isinstance(listed, list) else listed


def _filestore(value: object) -> object:
    return {"path": value, "content_addressed": False} if isinstance(value, str) and value != "none" else value


Text = Annotated[str, Field(min_length=1)]
Absolute = Annotated[str, AfterValidator(_absolute)]
Web = Annotated[str, AfterValidator(_http)]
BucketName = Annotated[str, AfterValidator(_bucket)]
HealthPage = Annotated[Web, AfterValidator(_health)]
ServiceName = Annotated[Text, AfterValidator(_service_name)]
ColumnName = Annotated[Text, AfterValidator(_column)]
CustomerName = Annotated[str, AfterValidator(_name_in_a_path)]


class _Ours(BaseModel):
    # Values never show in errors: some are secret.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class StoreVariables(_Ours):
    """The mapping `store:`, what S3 needs to know."""

    bucket: BucketName | None = None
    prefix: Annotated[str, AfterValidator(_prefix)] = ""
    region: Text | None = None
    endpoint_url: Web | None = None
    path_style: bool | None = None
    encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: Text | None = None
    storage_class: Text | None = None
    expected_bucket_owner: Annotated[str, Field(pattern=r"^\d{12}$")] | None = None
    profile: Text | None = None
    credentials_file: Text | None = None


class FilestoreVariables(_Ours):
    """The mapping `filestore:`."""

    path: Absolute
    content_addressed: bool = False


class RelationVariables(_Ours):
    """One of `validation.relations`."""

    child: ColumnName
    parent: ColumnName


class QueryVariables(_Ours):
    """One of `validation.queries`."""

    sql: Text
    expected: Annotated[str, BeforeValidator(_text)]


class ValidationVariables(_Ours):
    """The mapping `validation:`."""

    tables: Annotated[tuple[Text, ...], BeforeValidator(_listed)] = ()
    relations: tuple[RelationVariables, ...] = ()
    queries: tuple[QueryVariables, ...] = ()


class ServiceVariables(_Ours):
    """One of `services`; one with a `host` runs on that one of the inventory: a second node of the application."""

    name: ServiceName
    host: Text | None = None


class HostVariables(_Ours):
    """Our variables of one host. Anything else on it is the inventory's own."""

    dbname: Text | None = None
    odoo_conf: Absolute | None = None
    odoo_service: ServiceName | None = None
    services: Annotated[tuple[ServiceVariables, ...], BeforeValidator(_services)] = ()
    service_manager: Literal["systemd", "supervisor"] = "systemd"
    # After service_manager, which it is held against.
    supervisor_conf: Annotated[Absolute, AfterValidator(_supervisors)] | None = None
    service_user: Annotated[str, AfterValidator(_user)] | None = None
    filestore_owner: Annotated[str, AfterValidator(_owner)] | None = None
    protected: bool | None = None
    deploy_user: Text | None = None
    deploy_folder: Text | None = None
    database_url: Text | None = None
    filestore: Annotated[Literal["none"] | FilestoreVariables | None, BeforeValidator(_filestore)] = None
    alembic_ini: Absolute | None = None
    alembic_python: Absolute | None = None
    alembic_env: dict[str, Annotated[str, BeforeValidator(_text)]] = {}
    validation: ValidationVariables = ValidationVariables()
    backup_dir: Text | None = None
    customer: CustomerName | None = None
    health_url: HealthPage | None = None
    health_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    fingerprint: Literal["full", "counts"] = "full"
    pg_bindir: Absolute | None = None
    lock_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    # At most a year: a timer cannot be set to just any number.
    step_timeout: Annotated[float, Field(gt=0, le=31_536_000)] = 21_600.0
    settings: Text | None = None
    settings_python: Text | None = None
    settings_path: Text | None = None
    accept_missing_files: Annotated[int, Field(ge=0)] = 0
    odoo_bin: Annotated[str, AfterValidator(_program)] | None = None
    web_base_url: HealthPage | None = None
    neutralize: Annotated[tuple[Text, ...], BeforeValidator(_listed)] = ()
    store: StoreVariables = StoreVariables()
    ansible_connection: Text | None = None
    ansible_host: Text | None = None
    ansible_user: Text | None = None
    ansible_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    ansible_become: bool = False
    ansible_become_user: str = ""
    ansible_ssh_private_key_file: str = ""
    ansible_ssh_common_args: str = ""


_MAPPINGS: Mapping[str, type[BaseModel]] = {"store": StoreVariables, "validation": ValidationVariables}

OUR_VARIABLES = tuple(HostVariables.model_fields)
"""Every variable that is read from a host."""

_OWN_NAMES = [name for name in OUR_VARIABLES if not name.startswith("ansible_")]


class VariableSettings(BaseModel):
    """Settings that the environment's variables give, held to the rules of the inventory's."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    S3_BUCKET: BucketName | None = None
    S3_ENDPOINT_URL: Web | None = None
    CI_PROJECT_NAME: CustomerName | None = None
    AWS_REGION: Text | None = None
    AWS_DEFAULT_REGION: Text | None = None


def validated_host(
    host: str,
    resolved: Mapping[str, object],
    present: Mapping[str, object],
    where: Callable[..., tuple[str, int]],
) -> HostVariables:
    """Return a host's variables of ours.

    Args:
        host: The host's name in the inventory.
        resolved: Our variables, templates and vaults resolved.
        present: Every variable that the host has.
        where: `where(key, key below it)` -> file and line, 0 where unknown.

    Raises:
        ConfigurationError: Names every wrong key with its place and the nearest right one, every wrong value with its
            place and what is wrong; never a value.
    """

    def place(*keys: str) -> str:
        file, line = where(*keys)
        return f"{file}:{line}" if line else file

    problems = []
    hints = []
    for key in present:
        near = "" if key in OUR_VARIABLES or key.startswith("ansible_") else _nearest(key)
        if near and near not in present:
            problems.append(f"{key} ({place(key)}): did you mean {near}?")
            hints.append(f"write {near}; if {key} is your own, keep it and add `{near}:` (nothing behind it)")
    # `key:` with nothing behind it is YAML's null: unset.
    given = {key: _without_nulls(value) for key, value in resolved.items() if value is not None}
    validated = None
    try:
        validated = HostVariables.model_validate(given)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            if detail["loc"][0] == "filestore" and detail["type"] == "literal_error":
                continue  # said of everything but `none`, beside what is really wrong
            keys = _keys_of(detail)
            problem, hint = _explained(detail, keys)
            problems.append(f"{'.'.join(keys)} ({place(*keys)}): {problem}")
            hints.append(hint)
    if problems or validated is None:
        raise ConfigurationError(
            f"The inventory's variables of {host} are not right",
            expected="the variables that opsproof knows, with values that it can use",
            found="\n".join(dict.fromkeys(problems)),
            hint="\n".join(dict.fromkeys(hints)),
        )
    return validated


def validated_variables(environ: Mapping[str, str]) -> VariableSettings:
    """Return the settings among the environment's variables; an empty one is unset.

    Raises:
        ConfigurationError: Names the variable and what is wrong with it, not its value.
    """
    names = VariableSettings.model_fields
    given = {name: environ[name].strip() for name in names if environ.get(name, "").strip()}
    try:
        return VariableSettings.model_validate(given)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        name = str(detail["loc"][0])
        raise ConfigurationError(
            f"The variable {name} is not right",
            expected="a value that opsproof can use",
            found=_explained(detail, (name,))[0],
            hint=f"correct it: export {name}=... (or: unset {name})",
        ) from None


def _nearest(key: str) -> str:
    return next(iter(get_close_matches(key, _OWN_NAMES, n=1, cutoff=_NEAR)), "")


def _without_nulls(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: item for key, item in value.items() if item is not None}
    return value


def _keys_of(detail: ErrorDetails) -> tuple[str, ...]:
    """Return the keys that a person wrote: without the branches of a union and the numbers of a list."""
    keys = [str(part) for part in detail["loc"]]
    written = [key for key in keys[1:] if key.isidentifier() and not key.endswith("Variables")]
    return (keys[0], *written[:1])


def _explained(detail: ErrorDetails, keys: tuple[str, ...]) -> tuple[str, str]:
    kind, message = detail["type"], detail["msg"]
    if kind == "extra_forbidden":
        model = _MAPPINGS.get(keys[0], FilestoreVariables)
        known = list(model.model_fields)
        near = next(iter(get_close_matches(keys[-1], known, n=1)), "")
        return (
            f"no such key{f'; did you mean {keys[0]}.{near}?' if near else ''}",
            f"write {near}" if near else f"the keys of {keys[0]} are {', '.join(known)}",
        )
    if kind == "model_type":
        form = "must be `none`, a path, or a mapping" if keys[0] == "filestore" else "must be a mapping"
        return form, f"correct {keys[0]}, as in hosts.example.yml"
    words = message.removeprefix("Value error, ").removeprefix("Input ")
    if kind == "string_type":
        return f"{words}, not a number or another kind", f'put {keys[-1]} in quotes: {keys[-1]}: "..."'
    return words, f"correct {'.'.join(keys)}"


def fields_given(variables: BaseModel) -> Mapping[str, Any]:
    """Return the fields that were really given, without the defaults."""
    return {name: getattr(variables, name) for name in variables.model_fields_set}
