"""From hosts.yml, or from variables alone, to the environment and its targets.

A setting has one source: where two name different databases or stores, that is an error and not a precedence, since the
one who runs a backup believes in the other one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from opsproof.errors import ConfigurationError
from opsproof.inventory import ansible
from opsproof.inventory.application import read_setting
from opsproof.inventory.hosts import (
    agreeing,
    application_environment,
    connection_of_host,
    is_protected,
    target_of_host,
)
from opsproof.inventory.schema import (
    OUR_VARIABLES,
    HostVariables,
    VariableSettings,
    validated_host,
    validated_variables,
)
from opsproof.inventory.storage import choose_store
from opsproof.inventory.variables import NamedDatabase, database_of_environment, database_of_url, with_default_user
from opsproof.machine import THIS_MACHINE, Machine
from opsproof.target import Connection, Environment, MigrationSettings, Target


def load_environment(
    name: str,
    *,
    inventory: Path | None,
    environ: Mapping[str, str],
    only: Sequence[str] = (),
    settings: str | None = None,
    reading: ansible.Reading | None = None,
    machine_of: Callable[[Connection], Machine] = lambda _: THIS_MACHINE,
) -> Environment:
    """Load an environment and validate everything that its targets say.

    Args:
        name: What `--env` names: a group of the inventory, or any name where there is no inventory.
        inventory: The Ansible inventory; None if there is none, so that variables alone make the target.
        environ: The environment's variables; also what Ansible and the application's settings are run with.
        only: Names of the targets that `--target` chose; empty for all.
        settings: `module.path:attribute.attribute` of the application's database URL.
        reading: The inventory, where Ansible has begun to read it already.
        machine_of: What reads odoo.conf on a host; nobody but the host itself knows what is in it.

    Returns:
        An environment with at least one target.

    Raises:
        ConfigurationError: Something is missing, wrong or contradictory.
        ProgramMissing: ansible-core or the application's interpreter is not there.
        CommandTimeout: One of them does not end.
    """
    variables = validated_variables(environ)
    stated = database_of_environment(environ)
    if settings is not None:
        url = read_setting(settings, python=sys.executable, folder=Path.cwd(), environ=environ)
        stated = agreeing("the application", [*_known(stated), database_of_url(url, settings, environ=environ)])
    if inventory is None:
        return _environment_of_variables(name, stated, variables, only, environ)
    read = reading.finish() if reading else ansible.read_inventory(inventory, environ)
    hosts = _selected(name, _hosts_of(name, read), only)
    resolved = ansible.resolve(read, name, hosts, OUR_VARIABLES, environ)
    folder = (inventory if inventory.is_dir() else inventory.parent).absolute()

    def connection_of(other: str) -> Connection | None:
        if other not in read.variables and all(other not in known for known in read.groups.values()):
            return None
        own = ansible.resolve(read, "all", [other], OUR_VARIABLES, environ)[other]
        validated = validated_host(other, own, read.variables.get(other, {}), _places(read, other))
        return connection_of_host(other, validated)

    targets = []
    databases = []
    for host in hosts:
        present = read.variables.get(host, {})
        own = validated_host(host, resolved[host], present, _places(read, host))
        database, target = target_of_host(
            name,
            host,
            own,
            variables,
            folder=folder,
            where=_files(read, host),
            environ=environ,
            groups=read.groups_of(host),
            machine_of=machine_of,
            connection_of=connection_of,
        )
        targets.append(target)
        databases.append(database)
    if stated is not None and all(stated.contradicts(database) for database in databases):
        raise ConfigurationError(
            f"{stated.origin} names a database that is none of {name}'s",
            expected="\n".join(database.describe() for database in databases),
            found=stated.describe(),
            hint=f"unset {stated.origin}" if stated.origin.isupper() else "leave the settings to the inventory",
        )
    return Environment(name=name, origin=str(inventory), targets=tuple(targets))


def list_environments(inventory: Path, *, environ: Mapping[str, str] | None = None) -> Mapping[str, tuple[str, ...]]:
    """Return the groups that have hosts, with all their hosts; Ansible's own `all` and `ungrouped` come last.

    Args:
        inventory: The Ansible inventory.
        environ: Ansible's environment; None is the process's own.

    Raises:
        ConfigurationError: It cannot be read.
    """
    return _listed(ansible.read_inventory(inventory, os.environ if environ is None else environ))


def _listed(read: ansible.AnsibleInventory) -> dict[str, tuple[str, ...]]:
    names = sorted(read.groups, key=lambda group: group in {"all", "ungrouped"})
    return {name: read.groups[name] for name in names if read.groups[name]}


def _hosts_of(name: str, read: ansible.AnsibleInventory) -> tuple[str, ...]:
    hosts = read.groups.get(name, ())
    if hosts:
        return hosts
    known = list(_listed(read))
    exists = name in read.groups
    owner = next((group for group in known if name in read.groups[group]), None)
    near = get_close_matches(name, known, n=1)
    if owner is not None:
        hint = f"--env={owner} --target={name}"
    elif near:
        hint = f"--env={near[0]}"
    else:  # nothing alike: to suggest any one of them would be a guess
        hint = f"see what Ansible reads: ansible-inventory -i {read.path} --graph"
    raise ConfigurationError(
        f"The environment {name} has no hosts" if exists else f"There is no environment {name} in {read.path}",
        expected=f"one of {', '.join(_nearest_first(name, known))}" if known else "a group with hosts",
        found="\n".join([f"a group {name} without hosts" if exists else "no such group", *read.warnings]),
        hint=hint,
    )


def _selected(name: str, hosts: Sequence[str], only: Sequence[str]) -> tuple[str, ...]:
    for wanted in only:
        if wanted not in hosts:
            near = _nearest_first(wanted, hosts)
            raise ConfigurationError(
                f"There is no target {wanted} in {name}",
                expected=f"one of {', '.join(near)}",
                found=wanted,
                hint=f"--target={near[0]}" if get_close_matches(wanted, near, n=1) else "give one of these names",
            )
    return tuple(host for host in hosts if not only or host in only)


def _nearest_first(wanted: str, names: Sequence[str]) -> list[str]:
    near = get_close_matches(wanted, names, n=3, cutoff=0.6)
    return [*near, *(name for name in names if name not in near)]


def _places(read: ansible.AnsibleInventory, host: str) -> Callable[..., tuple[str, int]]:
    def where(*keys: str) -> tuple[str, int]:
        return read.where(host, *keys)

    return where


def _files(read: ansible.AnsibleInventory, host: str) -> Callable[..., str]:
    def where(*keys: str) -> str:
        return read.where(host, *keys)[0]

    return where


def _environment_of_variables(
    name: str,
    stated: NamedDatabase | None,
    variables: VariableSettings,
    only: Sequence[str],
    environ: Mapping[str, str],
) -> Environment:
    if stated is None:
        raise ConfigurationError(
            f"Nothing says what {name} is",
            expected="an inventory (hosts.yml), DATABASE_URL, PGDATABASE, or the application's settings",
            found="none of them",
            hint="cp hosts.example.yml hosts.yml, or: export DATABASE_URL=postgresql://user@host/database",
        )
    database = with_default_user(stated)
    target = database.address.name
    _selected(name, [target], only)
    own = HostVariables()
    chosen = choose_store(target, own, variables, folder=Path.cwd(), where=_nowhere, fallback=Path.cwd() / "backups")
    sources = {"database": stated.origin, "dbname": stated.origin, "filestore": "default", **chosen.sources}
    one = Target(
        name=target,
        environment=name,
        database=database.address,
        store=chosen.store,
        customer=chosen.customer,
        migrations=MigrationSettings(environ=application_environment(environ)),
        protected=is_protected(name),
        sources=sources,
    )
    return Environment(name=name, origin=stated.origin, targets=(one,))


def _nowhere(*_keys: str) -> str:
    return "default"


def _known(database: NamedDatabase | None) -> list[NamedDatabase]:
    return [] if database is None else [database]
