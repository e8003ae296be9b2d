"""One host of the inventory -> its target: connection, database, filestore, store.

Several sources of one setting have to agree; none of them silently wins.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path, PurePosixPath

from opsproof.errors import ConfigurationError
from opsproof.inventory.application import read_setting
from opsproof.inventory.keeping import policies_of_host
from opsproof.inventory.schema import FilestoreVariables, HostVariables, VariableSettings, fields_given
from opsproof.inventory.storage import choose_store
from opsproof.inventory.variables import NamedDatabase, database_of_url
from opsproof.machine import THIS_MACHINE, Machine
from opsproof.odoo import OdooConf, default_data_dir, filestore_path, read_odoo_conf
from opsproof.target import (
    Connection,
    DatabaseAddress,
    DeploySettings,
    FilestoreSettings,
    MigrationSettings,
    Query,
    Relation,
    Secret,
    Target,
    ValidationSettings,
)

_ODOO_USER = "odoo"
_PRODUCTION = frozenset({"prod", "production"})
_NOT_THE_APPLICATIONS = ("AWS_", "S3_", "PG", "ANSIBLE_", "PYTEST_")


def target_of_host(
    environment: str,
    host: str,
    own: HostVariables,
    variables: VariableSettings,
    *,
    folder: Path,
    where: Callable[..., str],
    environ: Mapping[str, str],
    groups: Collection[str] = (),
    machine_of: Callable[[Connection], Machine] = lambda _: THIS_MACHINE,
    connection_of: Callable[[str], Connection | None] = lambda _: None,
) -> tuple[NamedDatabase, Target]:
    """Return a host's target, and its database with the source that names it.

    Args:
        environment: The environment's name.
        host: The host's name in the inventory, which becomes the target's.
        own: The host's variables.
        variables: Settings of the environment's variables.
        folder: The inventory's folder, which relative paths are relative to.
        where: `where(key, key below it)` -> the file in which the host's variable stands.
        environ: What the application's settings are read with.
        groups: The groups that the host is in: one of production's is protected by whatever group it is chosen.
        machine_of: What reads odoo.conf, and looks for the default of `data_dir`, on the host.
        connection_of: How another host of the inventory is reached; None where it has none of that name.

    Raises:
        ConfigurationError: Something is missing or contradictory, or odoo.conf cannot be read.
    """
    connection = connection_of_host(host, own)
    machine = machine_of(connection)
    conf = _odoo_conf(own, machine)
    database = _database(host, own, conf, where, folder, environ)
    filestore = _filestore(own, conf, database.address.name, where, machine)
    chosen = choose_store(host, own, variables, folder=folder, where=where)
    sources = {key: where(key) for key in fields_given(own) if key != "store"}
    sources["database"] = database.origin
    sources.setdefault("dbname", database.origin)
    sources["filestore"] = filestore.origin if filestore else sources.get("filestore", "default")
    for key in ("fingerprint", "lock_timeout", "step_timeout", "service_manager", "health_timeout", "protected"):
        sources.setdefault(key, "default")
    services, nodes = _services(host, own, connection_of)
    target = Target(
        name=host,
        environment=environment,
        database=_through(connection, database.address, own.deploy_user),
        store=chosen.store,
        customer=chosen.customer,
        connection=connection,
        filestore=filestore,
        services=services,
        nodes=nodes,
        odoo_conf=own.odoo_conf,
        migrations=_migrations(own, connection, environ),
        validation=_validation(own),
        deploy_user=own.deploy_user,
        deploy_folder=own.deploy_folder,
        health_url=own.health_url,
        pg_bindir=own.pg_bindir,
        fingerprint=own.fingerprint,
        lock_timeout=own.lock_timeout,
        step_timeout=own.step_timeout,
        service_manager=own.service_manager,
        supervisor_conf=own.supervisor_conf,
        service_user=own.service_user,
        filestore_owner=own.filestore_owner,
        health_timeout=own.health_timeout,
        protected=is_protected(environment, *groups) if own.protected is None else own.protected,
        odoo_bin=own.odoo_bin,
        web_base_url=own.web_base_url,
        neutralize=own.neutralize,
        policies=policies_of_host(own, folder),
        deploy=_deploy(own),
        sources={**sources, **chosen.sources},
    )
    return database, target


def application_environment(environ: Mapping[str, str]) -> dict[str, Secret]:
    """Return the variables that an application of this machine is run with, without the store's and libpq's."""
    return {name: Secret(text) for name, text in environ.items() if not name.startswith(_NOT_THE_APPLICATIONS)}


def _migrations(own: HostVariables, connection: Connection, environ: Mapping[str, str]) -> MigrationSettings:
    variables = application_environment(environ) if connection.kind == "local" else {}
    # The one of this process may be another target's.
    variables.pop("DATABASE_URL", None)
    if own.database_url is not None:
        variables["DATABASE_URL"] = Secret(own.database_url)
    variables |= {name: Secret(text) for name, text in own.alembic_env.items()}
    ini = None if own.alembic_ini is None else PurePosixPath(own.alembic_ini)
    return MigrationSettings(ini, own.alembic_python or own.settings_python, variables)


def _services(
    host: str, own: HostVariables, connection_of: Callable[[str], Connection | None]
) -> tuple[tuple[str, ...], dict[str, Connection]]:
    labels = [own.odoo_service] if own.odoo_service else []
    nodes = {}
    for one in own.services:
        if one.host is None or one.host == host:
            labels.append(one.name)
            continue
        label, reached = f"{one.name} on {one.host}", connection_of(one.host)
        if reached is None:
            raise ConfigurationError(
                f"services of {host} name a host that the inventory does not have",
                expected="a host of the inventory, in whatever group",
                found=one.host,
                hint=f"add {one.host} to the inventory, with its ansible_host",
            )
        labels.append(label)
        nodes[label] = reached
    return tuple(dict.fromkeys(labels)), nodes


def _validation(own: HostVariables) -> ValidationSettings:
    return ValidationSettings(
        tables=own.validation.tables,
        relations=tuple(Relation(one.child, one.parent) for one in own.validation.relations),
        queries=tuple(Query(one.sql, one.expected) for one in own.validation.queries),
    )


def _deploy(own: HostVariables) -> DeploySettings:
    said = own.deploy
    hooks = {name: commands for name, commands in own.hooks.model_dump().items() if commands}
    return DeploySettings(said.keep_releases, said.shared, said.rehearse, said.database, said.hook_timeout, hooks)


def is_protected(*names: str) -> bool:
    """Tell whether a target is protected where nothing says so: one is whose environment or group is production's."""
    return any(name.casefold() in _PRODUCTION for name in names)


def connection_of_host(host: str, own: HostVariables) -> Connection:
    """Return how a host of the inventory is reached."""
    # Ansible's default for a host that is listed is ssh, whatever its name; only a host that is not listed is local.
    kind = (own.ansible_connection or "ssh").removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")
    kind = "ssh" if kind == "smart" else kind
    return Connection(
        kind=kind,
        host=own.ansible_host or ("" if kind == "local" else host),
        user=own.ansible_user or "",
        port=own.ansible_port,
        become=own.ansible_become,
        become_user=own.ansible_become_user,
        private_key_file=own.ansible_ssh_private_key_file,
        ssh_common_args=own.ansible_ssh_common_args,
    )


def _through(connection: Connection, address: DatabaseAddress, deploy_user: str | None) -> DatabaseAddress:
    """Return an address as what the host says it is: a socket, or `localhost`, is the host's own."""
    return address if connection.kind == "local" else replace(address, via=connection, os_user=deploy_user or "")


def _odoo_conf(own: HostVariables, machine: Machine) -> OdooConf | None:
    return None if own.odoo_conf is None else read_odoo_conf(own.odoo_conf, machine)


def _database(
    host: str,
    own: HostVariables,
    conf: OdooConf | None,
    where: Callable[..., str],
    folder: Path,
    environ: Mapping[str, str],
) -> NamedDatabase:
    named = []
    if conf is not None:
        named.append(NamedDatabase(conf.address(own.dbname), f"odoo.conf {conf.path}"))
    if own.database_url is not None:
        origin = f"database_url in {where('database_url')}"
        named.append(database_of_url(own.database_url, origin, dbname=own.dbname, environ=environ))
    if own.settings is not None:
        url = read_setting(
            own.settings,
            python=own.settings_python or sys.executable,
            folder=folder / Path(own.settings_path or ".").expanduser(),
            environ=environ,
        )
        named.append(database_of_url(url, own.settings, dbname=own.dbname, environ=environ))
    if not named:
        raise ConfigurationError(
            f"Nothing says where the database of {host} is",
            expected="odoo_conf, database_url or settings",
            found="dbname alone" if own.dbname else "none of them",
            hint=f"give {host} `odoo_conf: /etc/odoo/odoo.conf`, or `database_url: postgresql://user@host/database`",
        )
    chosen = agreeing(host, named)
    if own.dbname is not None and chosen.address.name != own.dbname:
        raise ConfigurationError(
            f"dbname of {host} contradicts {chosen.origin}",
            expected=chosen.address.name,
            found=f"dbname: {own.dbname} ({where('dbname')})",
            hint="take dbname out, or correct it",
        )
    return chosen


def _filestore(
    own: HostVariables, conf: OdooConf | None, dbname: str, where: Callable[..., str], machine: Machine
) -> FilestoreSettings | None:
    if own.filestore == "none":
        return None
    if isinstance(own.filestore, FilestoreVariables):
        path = PurePosixPath(own.filestore.path)
        origin = f"filestore in {where('filestore')}"
        return FilestoreSettings(path, own.filestore.content_addressed, origin, own.accept_missing_files)
    if conf is None:
        return None
    data_dir, origin = conf.data_dir, f"data_dir in {conf.path}"
    if data_dir is None:
        users = [user for user in (own.deploy_user, _ODOO_USER) if user]
        data_dir, origin = default_data_dir(users, machine), f"Odoo's default, as there is no data_dir in {conf.path}"
    if not data_dir.is_absolute():
        raise ConfigurationError(
            f"data_dir in {conf.path} is not absolute",
            expected="an absolute path: a relative one depends on where Odoo was started",
            found=str(data_dir),
            hint="correct data_dir, or give the folder in the inventory: `filestore: {path: /path/DB, "
            "content_addressed: true}`",
        )
    return FilestoreSettings(filestore_path(data_dir, dbname), True, origin, own.accept_missing_files)


def agreeing(whose: str, named: Sequence[NamedDatabase]) -> NamedDatabase:
    """Return the first of several sources if none of the others names another database.

    Args:
        whose: What an error calls the one that the sources are of.
        named: At least one source.

    Raises:
        ConfigurationError: Two of them name different databases.
    """
    first = named[0]
    if any(one.contradicts(other) for one, other in combinations(named, 2)):
        raise ConfigurationError(
            f"The sources of {whose} name different databases",
            expected="one database",
            found="\n".join(database.describe() for database in named),
            hint="take out those that are wrong: nothing here takes precedence",
        )
    return first
