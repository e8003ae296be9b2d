"""An Ansible inventory, read by Ansible's own commands.

`ansible-inventory` merges groups and variables, but leaves templates and vaults as they are; a second command,
`ansible -m debug`, resolves those, and is run only for the variables asked for and only if they need it: each costs
half a second, and a variable that only the user's playbooks can resolve must not be in the way.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opsproof.errors import ConfigurationError
from opsproof.inventory.ansiblecommand import AnsibleCommand, run_ansible
from opsproof.inventory.ansiblecomplaint import explain_unreadable, find_cause, find_origin, find_remedy, place_of
from opsproof.inventory.files import where_is

_FILE_NAMES = ("hosts.yml", "hosts.yaml")
_ANSWER = re.compile(r"^(\S+) \| (SUCCESS|CHANGED|FAILED!|UNREACHABLE!)(?: \|[^\n]*)? => (?=\{)", re.MULTILINE)


@dataclass(frozen=True)
class AnsibleInventory:
    """Groups and merged variables as `ansible-inventory` gives them: templates and vaults unresolved.

    `groups` holds for each group all its hosts, those of nested groups included, in the inventory's order; `depths`
    how deep a group is nested; `warnings` what Ansible had to say about parts that it passed over.
    """

    path: Path
    groups: Mapping[str, tuple[str, ...]]
    depths: Mapping[str, int]
    variables: Mapping[str, Mapping[str, object]]
    warnings: tuple[str, ...] = ()

    def groups_of(self, host: str) -> tuple[str, ...]:
        """Return the groups of a host, the innermost first, as their variables take precedence."""
        mine = [group for group, hosts in self.groups.items() if host in hosts]
        return tuple(sorted(mine, key=lambda group: -self.depths.get(group, 0)))

    def where(self, host: str, *keys: str) -> tuple[str, int]:
        """Return file and line where a host's variable stands (line 0 if only the file is known)."""
        return where_is(self.path, host, self.groups_of(host), keys)


def find_inventory(folder: Path) -> Path | None:
    """Return the inventory of a working directory, hosts.yml, or None if there is none."""
    return next((folder / name for name in _FILE_NAMES if (folder / name).is_file()), None)


class Reading:
    """An inventory that Ansible has begun to read, which takes a third of a second; `finish` waits for it.

    Args:
        path: The file; a directory or anything else that Ansible's `-i` takes as a path works too.
        environ: Ansible's environment: ANSIBLE_CONFIG, ANSIBLE_VAULT_PASSWORD_FILE and the like work.

    Raises:
        ConfigurationError: It is not there.
        ProgramMissing: There is no ansible-core.
    """

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        if not path.exists():
            raise ConfigurationError(
                f"There is no inventory {path}",
                expected="an Ansible inventory",
                found="no such file",
                hint="give its path: --inventory=PATH, or start from the example: cp hosts.example.yml hosts.yml",
            )
        self.path = path
        self._environ = environ
        self._command = AnsibleCommand("ansible-inventory", ["-i", str(path.absolute()), "--list"], environ)

    def finish(self) -> AnsibleInventory:
        """Return the inventory with its group_vars and host_vars.

        Raises:
            ConfigurationError: Ansible cannot read it; file and line where Ansible says them.
            CommandTimeout: Ansible does not end.
        """
        return _read_answer(self.path, self._command.finish(), self._environ)

    def abandon(self) -> None:
        """End what nobody waits for."""
        self._command.abandon()


def read_inventory(path: Path, environ: Mapping[str, str]) -> AnsibleInventory:
    """Read an inventory with its group_vars and host_vars; arguments and errors are those of `Reading`."""
    return Reading(path, environ).finish()


def _read_answer(path: Path, done: subprocess.CompletedProcess[str], environ: Mapping[str, str]) -> AnsibleInventory:
    if done.returncode != 0:
        raise explain_unreadable(path, done.stderr, environ)
    try:
        answer = json.loads(done.stdout)
        variables = {host: dict(values) for host, values in answer.pop("_meta")["hostvars"].items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            f"ansible-inventory gave an answer for {path} that is not its JSON",
            expected="the JSON of `ansible-inventory --list`",
            found=f"{len(done.stdout)} characters that are something else",
            hint=f"look at it: ansible-inventory -i {path} --list",
        ) from error
    return AnsibleInventory(
        path=path,
        groups=dict(_flattened(answer)),
        depths=_depths(answer),
        variables=variables,
        warnings=tuple(line for line in done.stderr.splitlines() if line.startswith("[WARNING]")),
    )


def resolve(
    inventory: AnsibleInventory, group: str, hosts: Sequence[str], names: Iterable[str], environ: Mapping[str, str]
) -> dict[str, dict[str, object]]:
    """Return, for each of `hosts`, those of the variables `names` that it has, templates and vaults resolved.

    Raises:
        ConfigurationError: A template or a vault cannot be resolved; it names variable, host, file and line.
    """
    wanted = list(names)
    given = {host: inventory.variables.get(host, {}) for host in hosts}
    values = {host: {name: own[name] for name in wanted if name in own} for host, own in given.items()}
    unresolved = [name for name in wanted if any(_is_unresolved(own.get(name)) for own in values.values())]
    if unresolved:
        answers, _ = _ask(inventory, group, unresolved, environ)
        for host, own in values.items():
            answer = answers.get(host)
            if answer is None:
                raise _unresolvable(inventory, host, [name for name in unresolved if name in own], environ)
            own.update({name: answer[name] for name in unresolved if name in own})
    return {host: {name: _without_marks(value) for name, value in own.items()} for host, own in values.items()}


def _ask(
    inventory: AnsibleInventory, group: str, names: Sequence[str], environ: Mapping[str, str]
) -> tuple[dict[str, dict[str, object]], str]:
    """Return what Ansible makes of these variables for each host of a group, and what it complained about."""
    own = "hostvars[inventory_hostname]"
    pairs = ", ".join(f"'{name}': ({own}['{name}'] if '{name}' in {own} else none)" for name in names)
    task = json.dumps({"msg": "{{ {" + pairs + "} }}"})
    done = run_ansible(
        "ansible",
        [group, "-i", str(inventory.path.absolute()), "-m", "ansible.builtin.debug", "-a", task],
        environ,
    )
    answers = {}
    for match in _ANSWER.finditer(done.stdout):
        if match[2] == "SUCCESS":
            result, _ = json.JSONDecoder().raw_decode(done.stdout, match.end())
            if isinstance(result.get("msg"), dict):
                answers[match[1]] = result["msg"]
    return answers, done.stderr + done.stdout


def _unresolvable(
    inventory: AnsibleInventory, host: str, names: Sequence[str], environ: Mapping[str, str]
) -> ConfigurationError:
    # Asked one at a time, which takes a while but only now: the name of the culprit is what helps.
    for name in names:
        answers, complaint = _ask(inventory, host, [name], environ)
        if host not in answers:
            file, line = inventory.where(host, name)
            origin = find_origin(inventory.path, complaint)
            return ConfigurationError(
                f"{name} of {host} cannot be resolved",
                expected=f"a value that Ansible can make of {name} ({place_of(file, line)})",
                found=find_cause(complaint) + (f" ({origin})" if origin and origin != place_of(file, line) else ""),
                hint=find_remedy(complaint, inventory.path),
            )
    return ConfigurationError(
        f"Ansible does not answer for {host}",
        expected=f"the values of {', '.join(names)}",
        found="no answer that can be read",
        hint=f"run it by hand: ansible {host} -i {inventory.path} -m debug -a var={names[0] if names else 'dbname'}",
    )


def _children(answer: Mapping[str, Mapping[str, Sequence[str]]], group: str) -> Sequence[str]:
    return answer.get(group, {}).get("children", ())


def _flattened(answer: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    def hosts_of(group: str) -> Iterator[str]:
        yield from answer.get(group, {}).get("hosts", ())
        for child in _children(answer, group):
            yield from hosts_of(child)

    # An empty group is only ever named as a child of another.
    names = dict.fromkeys([*answer, *(child for group in answer for child in _children(answer, group))])
    for name in names:
        yield name, tuple(dict.fromkeys(hosts_of(name)))


def _depths(answer: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, int]:
    depths: dict[str, int] = {}

    def descend(group: str, depth: int) -> None:
        if depth > depths.get(group, -1):
            depths[group] = depth
            for child in _children(answer, group):
                descend(child, depth + 1)

    descend("all", 0)
    return depths


def _is_unresolved(value: object) -> bool:
    if isinstance(value, str):
        return any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, Mapping):
        if "__ansible_unsafe" in value:
            return False
        return "__ansible_vault" in value or any(_is_unresolved(item) for item in value.values())
    return isinstance(value, list) and any(_is_unresolved(item) for item in value)


def _without_marks(value: object) -> object:
    """Return a value without the mark that `ansible-inventory` puts around what is tagged `!unsafe`."""
    if isinstance(value, Mapping):
        if set(value) == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: _without_marks(item) for key, item in value.items()}
    return [_without_marks(item) for item in value] if isinstance(value, list) else value
