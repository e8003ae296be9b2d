"""What an environment and a target are: the frozen values that every room of the engine works on.

They are made by `opsproof.inventory`, which validates; nothing here reads a file or a variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from psycopg.conninfo import make_conninfo

from opsproof.policies import ObjectLock, Policies


@dataclass(frozen=True)
class Secret:
    """A text that shows itself only when asked by name, so that no log or traceback prints it by accident."""

    _text: str

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


@dataclass(frozen=True)
class Connection:
    """How the host is reached, from Ansible's `ansible_*` variables.

    `kind` is Ansible's connection name (`local`, `ssh`, ...); the rest is empty where the inventory is silent.
    """

    kind: str = "local"
    host: str = ""
    user: str = ""
    port: int | None = None
    become: bool = False
    become_user: str = ""
    private_key_file: str = ""
    ssh_common_args: str = ""


@dataclass(frozen=True)
class DatabaseAddress:
    """Where the database is and as whom to log in. An empty `host` is the default Unix socket.

    `parameters` are further libpq connection parameters (`sslmode`, `sslrootcert`, ...). `via` is the machine that the
    rest is said from: None is this one; `os_user` is whom to be there, where the server asks the operating system and
    there is no account of the role's name.
    """

    name: str
    host: str = ""
    port: int = 5432
    user: str = ""
    password: Secret | None = None
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)
    via: Connection | None = None
    os_user: str = ""

    def conninfo(self, *, name: str | None = None, options: str = "") -> str:
        """Return a libpq connection string without the password.

        Args:
            name: Another database on the same server.
            options: Of the server's command line, after those that `parameters` has: of two the later counts.
        """
        words = {"host": self.host, "user": self.user, **self.parameters}
        words["options"] = f"{words.get('options', '')} {options}".strip()
        known = {key: value for key, value in words.items() if value}
        return make_conninfo("", dbname=self.name if name is None else name, port=self.port, **known)

    @property
    def server(self) -> str:
        """Return `host:port` as an error or a header shows it."""
        there = f" of {self.via.host}" if self.via else ""
        return f"{self.host or 'local socket'}:{self.port}{there}"


@dataclass(frozen=True)
class FilestoreSettings:
    """The folder of the application's files.

    A content-addressed one names each file by the SHA-1 of its content, as Odoo does: its files are written once and
    never change, so hard links freeze it. `origin` is what an error names as the place to correct: `data_dir in
    /etc/odoo/odoo.conf`.
    """

    path: PurePosixPath
    content_addressed: bool
    origin: str
    accept_missing: int = 0


@dataclass(frozen=True)
class DirectoryStoreSettings:
    """Backups go to a folder on the machine that runs pytest."""

    path: Path


@dataclass(frozen=True)
class S3StoreSettings:
    """Backups go to `s3://{bucket}/{prefix}{customer}/backups/`.

    Credentials come from boto3's own chain; `profile` and `credentials_file` only say where that chain looks. What a
    backup consists of is uploaded with `object_lock`, where there is one.
    """

    bucket: str
    region: str
    prefix: str = ""
    endpoint_url: str | None = None
    path_style: bool | None = None
    encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None
    storage_class: str | None = None
    expected_bucket_owner: str | None = None
    profile: str | None = None
    credentials_file: str | None = None
    object_lock: ObjectLock | None = None


StoreSettings = DirectoryStoreSettings | S3StoreSettings


@dataclass(frozen=True)
class MigrationSettings:
    """How the application's Alembic is run.

    `ini` and `python` are looked for where they are None. `environ` is what env.py finds besides the database's own
    variables; any of it may be secret.
    """

    ini: PurePosixPath | None = None
    python: str | None = None
    environ: Mapping[str, Secret] = field(default_factory=dict)


@dataclass(frozen=True)
class Relation:
    """A column whose values have to be found in a column of another table; both as `table.column`, as SQL has them."""

    child: str
    parent: str


@dataclass(frozen=True)
class Query:
    """A query of one value, and the text that it has to be."""

    sql: str
    expected: str


@dataclass(frozen=True)
class ValidationSettings:
    """What has to hold of the database after it was replaced or changed.

    `tables` exist and have rows; every `relation` holds, as do all foreign keys; every query answers as expected.
    """

    tables: tuple[str, ...] = ()
    relations: tuple[Relation, ...] = ()
    queries: tuple[Query, ...] = ()


@dataclass(frozen=True)
class DeploySettings:
    """How releases are deployed.

    `shared` are paths below a release that lead to those below `shared/`; one that ends in a slash is a folder.
    `rehearse`: the database's update is tried on a side database first. `database` is what updates it; None where that
    is to be found out. `hook_timeout` is in seconds; `hooks` are shell commands or pytest files by when they are run.
    """

    keep_releases: int = 5
    shared: tuple[str, ...] = ()
    rehearse: bool = False
    database: Literal["odoo", "alembic", "none"] | None = None
    hook_timeout: float = 600.0
    hooks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """One application of an environment: its database, its files, its services, and the store of its backups.

    `sources` tells for each setting where it came from (`dbname` -> `hosts.yml`), for the run's header; it never
    holds a value. `services` are in the order in which they are started; those on other hosts, `NAME on HOST`,
    have the way there in `nodes`. `service_user` is whom they run as, and
    `filestore_owner` (`user` or `user:group`) whose the files are, where the host itself does not tell. A `protected`
    target is not changed without being asked for by name. `health_timeout` is in seconds.

    `odoo_bin` is Odoo's own command, looked for where it is None, `none` where it is not to be asked; `web_base_url` is
    the address of this environment's Odoo; `neutralize` are further SQL statements that make a copy harmless.
    """

    name: str
    environment: str
    database: DatabaseAddress
    store: StoreSettings
    customer: str
    connection: Connection = Connection()
    filestore: FilestoreSettings | None = None
    services: tuple[str, ...] = ()
    nodes: Mapping[str, Connection] = field(default_factory=dict)
    odoo_conf: str | None = None
    migrations: MigrationSettings = MigrationSettings()
    validation: ValidationSettings = ValidationSettings()
    deploy_user: str | None = None
    deploy_folder: str | None = None
    health_url: str | None = None
    pg_bindir: str | None = None
    fingerprint: Literal["full", "counts"] = "full"
    lock_timeout: float = 60.0
    step_timeout: float = 21_600.0
    service_manager: Literal["systemd", "supervisor"] = "systemd"
    supervisor_conf: str | None = None
    service_user: str | None = None
    filestore_owner: str | None = None
    health_timeout: float = 60.0
    protected: bool = False
    odoo_bin: str | None = None
    web_base_url: str | None = None
    neutralize: tuple[str, ...] = ()
    policies: Policies = field(default_factory=Policies)
    deploy: DeploySettings = field(default_factory=DeploySettings)
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """What `--env` names: a group of the inventory and its targets."""

    name: str
    origin: str
    targets: tuple[Target, ...]
