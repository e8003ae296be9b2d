"""What a host of the inventory may say, validated: the only place where the inventory's own data has no type yet.

A variable that is not one of ours belongs to somebody else and is left alone, because an existing inventory has many;
but one that nearly is ours, where ours is missing, is taken for the slip of the pen that it most likely is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from opsproof.errors import ConfigurationError
from opsproof.inventory.asked import (
    ArtifactsVariables,
    DeployVariables,
    DrillVariables,
    EncryptionVariables,
    ExpectVariables,
    HooksVariables,
    ObjectivesVariables,
    ObjectLockVariables,
    PingVariables,
    RetentionVariables,
    SigningVariables,
    ThresholdsVariables,
)
from opsproof.inventory.slips import explain
from opsproof.inventory.values import (
    Absolute,
    BucketName,
    ColumnName,
    CustomerName,
    HealthPage,
    Ours,
    Owner,
    Prefix,
    Program,
    Seconds,
    ServiceName,
    SupervisorFile,
    Text,
    Texts,
    User,
    Web,
    WrittenText,
    as_list,
)

_NEAR = 0.85


def _services(value: object) -> object:
    listed = as_list(value)
    return [{"name": one} if isinstance(one, str) else one for one in listed] if isinstance(listed, list) else listed


def _filestore(value: object) -> object:
    return {"path": value, "content_addressed": False} if isinstance(value, str) and value != "none" else value


class StoreVariables(Ours):
    """The mapping `store:`, what S3 needs to know."""

    bucket: BucketName | None = None
    prefix: Prefix = ""
    region: Text | None = None
    endpoint_url: Web | None = None
    path_style: bool | None = None
    encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: Text | None = None
    storage_class: Text | None = None
    expected_bucket_owner: Annotated[str, Field(pattern=r"^\d{12}$")] | None = None
    profile: Text | None = None
    credentials_file: Text | None = None
    object_lock: ObjectLockVariables | None = None
    expect: ExpectVariables = ExpectVariables()


class FilestoreVariables(Ours):
    """The mapping `filestore:`."""

    path: Absolute
    content_addressed: bool = False


class RelationVariables(Ours):
    """One of `validation.relations`."""

    child: ColumnName
    parent: ColumnName


class QueryVariables(Ours):
    """One of `validation.queries`."""

    sql: Text
    expected: WrittenText


class ValidationVariables(Ours):
    """The mapping `validation:`."""

    tables: Texts = ()
    relations: tuple[RelationVariables, ...] = ()
    queries: tuple[QueryVariables, ...] = ()


class ServiceVariables(Ours):
    """One of `services`; one with a `host` runs on that one of the inventory: a second node of the application."""

    name: ServiceName
    host: Text | None = None


class HostVariables(Ours):
    """Our variables of one host. Anything else on it is the inventory's own."""

    dbname: Text | None = None
    odoo_conf: Absolute | None = None
    odoo_service: ServiceName | None = None
    services: Annotated[tuple[ServiceVariables, ...], BeforeValidator(_services)] = ()
    service_manager: Literal["systemd", "supervisor"] = "systemd"
    # After service_manager, which it is held against.
    supervisor_conf: SupervisorFile | None = None
    service_user: User | None = None
    filestore_owner: Owner | None = None
    protected: bool | None = None
    deploy_user: Text | None = None
    deploy_folder: Text | None = None
    database_url: Text | None = None
    filestore: Annotated[Literal["none"] | FilestoreVariables | None, BeforeValidator(_filestore)] = None
    alembic_ini: Absolute | None = None
    alembic_python: Absolute | None = None
    alembic_env: dict[str, WrittenText] = Field(default_factory=dict)
    validation: ValidationVariables = ValidationVariables()
    backup_dir: Text | None = None
    customer: CustomerName | None = None
    health_url: HealthPage | None = None
    health_timeout: Seconds = 60.0
    fingerprint: Literal["full", "counts"] = "full"
    pg_bindir: Absolute | None = None
    lock_timeout: Seconds = 60.0
    # At most a year: a timer cannot be set to just any number.
    step_timeout: Annotated[float, Field(gt=0, le=31_536_000)] = 21_600.0
    settings: Text | None = None
    settings_python: Text | None = None
    settings_path: Text | None = None
    accept_missing_files: Annotated[int, Field(ge=0)] = 0
    odoo_bin: Program | None = None
    web_base_url: HealthPage | None = None
    neutralize: Texts = ()
    store: StoreVariables = StoreVariables()
    retention: RetentionVariables = RetentionVariables()
    artifacts: ArtifactsVariables = ArtifactsVariables()
    objectives: ObjectivesVariables = ObjectivesVariables()
    drill: DrillVariables = DrillVariables()
    encryption: EncryptionVariables = EncryptionVariables()
    signing: SigningVariables = SigningVariables()
    thresholds: ThresholdsVariables = ThresholdsVariables()
    ping: PingVariables = PingVariables()
    deploy: DeployVariables = DeployVariables()
    hooks: HooksVariables = HooksVariables()
    ansible_connection: Text | None = None
    ansible_host: Text | None = None
    ansible_user: Text | None = None
    ansible_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    ansible_become: bool = False
    ansible_become_user: str = ""
    ansible_ssh_private_key_file: str = ""
    ansible_ssh_common_args: str = ""


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
            slip = explain(detail, HostVariables)
            problems.append(f"{'.'.join(slip.keys)} ({place(*slip.place)}): {slip.problem}")
            hints.append(slip.hint)
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
            found=explain(detail, VariableSettings).problem,
            hint=f"correct it: export {name}=... (or: unset {name})",
        ) from None


def _nearest(key: str) -> str:
    return next(iter(get_close_matches(key, _OWN_NAMES, n=1, cutoff=_NEAR)), "")


def _without_nulls(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def fields_given(variables: BaseModel) -> Mapping[str, Any]:
    """Return the fields that were really given, without the defaults."""
    return {name: getattr(variables, name) for name in variables.model_fields_set}
