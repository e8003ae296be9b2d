"""An Ansible inventory, read by Ansible's own commands.

`ansible-inventory` merges groups and variables, but leaves templates and vaults as they are; a second command,
`ansible -m debug`, resolves those, and is run only for the variables asked for and only if they need it: each costs
half a second, and a variable that only the user's playbooks can resolve must not be in the way.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opsproof.errors import CommandTimeout, ConfigurationError, ProgramMissing
from opsproof.inventory.files import is_encrypted, variable_files, where_is

_FILE_NAMES = ("hosts.yml", "hosts.yaml")
_TIMEOUT = 120.0
_OVERRIDES = {
    # The answer is read by a program: no colours, no other callbacks, no merging switched off.
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_FORCE_COLOR": "0",
    "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
    "ANSIBLE_LOAD_CALLBACK_PLUGINS": "0",
    "ANSIBLE_INVENTORY_EXPORT": "0",
    "ANSIBLE_VERBOSITY": "0",
    "ANSIBLE_DEBUG": "0",
    "ANSIBLE_DEPRECATION_WARNINGS": "0",
    # Without it, a file that cannot be parsed is an inventory without hosts and exit 0.
    "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
    # Resolved variables hold secrets: they pass through a pipe to here and must not reach a log of the user's.
    "ANSIBLE_NO_LOG": "0",
    "ANSIBLE_LOG_PATH": "/dev/null",
    # Ansible refuses to start where the locale is not UTF-8, as in many CI images.
    "LC_ALL": "C.UTF-8",
}
_ANSWER = re.compile(r"^(\S+) \| (SUCCESS|CHANGED|FAILED!|UNREACHABLE!)(?: \|[^\n]*)? => (?=\{)", re.MULTILINE)
_ORIGIN = re.compile(r"Origin: (/[^\n]*?):(\d+)(?::\d+)?\s*$", re.MULTILINE)
_ORIGIN_BEFORE_2_19 = re.compile(r"appears to be in '([^'\n]+)': line (\d+)")
_UNDEFINED = re.compile(r"('[^'\n]+' is undefined|has no attribute '[^'\n]+')")
_REASONS = (
    _UNDEFINED,
    re.compile(r"(Syntax error in template)"),
    re.compile(r"((?:No|Could not load|Unable to find a) [^\n]*(?:filter|test|lookup)[^\n]*)", re.IGNORECASE),
    re.compile(r"(YAML parsing failed: [^\n]*)"),
    re.compile(r"with (?:'yaml'|\S*yaml) plugin: ([^\n]*)"),
    re.compile(r"(The vault password (?:file|script)[^\n]*)"),
    re.compile(r"(Completely failed to parse inventory source[^\n]*)"),
    re.compile(r"^ERROR! ([^\n]*)", re.MULTILINE),
)


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
        self._command = _Command("ansible-inventory", ["-i", str(path.absolute()), "--list"], environ)

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
        raise _unreadable(path, done.stderr, environ)
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


class _Command:
    """One of Ansible's commands, running."""

    def __init__(self, program: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        # The virtual environment's own comes first: it is the one that was installed with this package.
        beside = Path(sys.executable).parent / program
        found = str(beside) if beside.is_file() else shutil.which(program, path=environ.get("PATH"))
        if found is None:
            raise ProgramMissing(
                f"{program} is not there",
                expected=f"{beside}, or {program} on PATH",
                found="neither",
                hint=f"install it beside this package: {sys.executable} -m pip install ansible-core",
            )
        self._shown = f"{program} {' '.join(arguments[:2])} --list"
        # A session of its own has no terminal, so that a vault's password is never waited for at a prompt.
        self._process = subprocess.Popen(
            [found, *arguments],
            env={**environ, **_OVERRIDES},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def finish(self) -> subprocess.CompletedProcess[str]:
        try:
            stdout, stderr = self._process.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise CommandTimeout(
                f"{self._shown.split()[0]} did not end within {_TIMEOUT:.0f} s",
                expected="an answer within a second or two",
                found="none: a dynamic inventory or a vault's password script may be waiting for something",
                hint=f"run it by hand: {self._shown}",
            ) from None
        finally:
            self.abandon()
        return subprocess.CompletedProcess(self._process.args, self._process.returncode, stdout, stderr)

    def abandon(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        with self._process:
            pass


def _run(program: str, arguments: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return _Command(program, arguments, environ).finish()


def _ask(
    inventory: AnsibleInventory, group: str, names: Sequence[str], environ: Mapping[str, str]
) -> tuple[dict[str, dict[str, object]], str]:
    """Return what Ansible makes of these variables for each host of a group, and what it complained about."""
    own = "hostvars[inventory_hostname]"
    pairs = ", ".join(f"'{name}': ({own}['{name}'] if '{name}' in {own} else none)" for name in names)
    task = json.dumps({"msg": "{{ {" + pairs + "} }}"})
    done = _run(
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
            origin = _origin(inventory.path, complaint)
            return ConfigurationError(
                f"{name} of {host} cannot be resolved",
                expected=f"a value that Ansible can make of {name} ({_place(file, line)})",
                found=_cause(complaint) + (f" ({origin})" if origin and origin != _place(file, line) else ""),
                hint=_remedy(complaint, inventory.path),
            )
    return ConfigurationError(
        f"Ansible does not answer for {host}",
        expected=f"the values of {', '.join(names)}",
        found="no answer that can be read",
        hint=f"run it by hand: ansible {host} -i {inventory.path} -m debug -a var={names[0] if names else 'dbname'}",
    )


def _unreadable(path: Path, stderr: str, environ: Mapping[str, str]) -> ConfigurationError:
    # Ansible names the line of a broken inventory, but neither file nor line of a broken or sealed variable file.
    origin = _origin(path, stderr)
    if not origin and "vault" in stderr.lower():
        base = path if path.is_dir() else path.parent
        origin = ", ".join(str(file.relative_to(base)) for file in variable_files(path) if is_encrypted(file))
    elif not origin and "YAML" in stderr:
        origin = next(filter(None, (_broken_line(path, file, environ) for file in variable_files(path))), "")
    return ConfigurationError(
        f"Ansible cannot read the inventory {path}",
        expected="an inventory that `ansible-inventory` reads",
        found=_cause(stderr) + (f" ({origin})" if origin else ""),
        hint=_remedy(stderr, path),
    )


def _broken_line(path: Path, file: Path, environ: Mapping[str, str]) -> str:
    """Return where a variable file is broken, by giving it to Ansible alone, which then names the line."""
    if is_encrypted(file):
        return ""
    # `auto` first: the plugin that reads a file first is the one that tells the line.
    alone = {**environ, "ANSIBLE_INVENTORY_ENABLED": "auto,yaml"}
    done = _run("ansible-inventory", ["-i", str(file.absolute()), "--list"], alone)
    return _origin(path, done.stderr) if "YAML" in done.stderr else ""


def _origin(path: Path, text: str) -> str:
    """Return `file:line` from Ansible's complaint; the lines that it quotes may hold secrets and stay out."""
    match = _ORIGIN.search(text) or _ORIGIN_BEFORE_2_19.search(text)
    if match is None:
        return ""
    base = (path if path.is_dir() else path.parent).absolute()
    file = Path(match[1])
    return f"{file.relative_to(base) if file.is_relative_to(base) else file}:{match[2]}"


def _place(file: str, line: int) -> str:
    return f"{file}:{line}" if line else file


def _cause(text: str) -> str:
    """Return the reason in Ansible's words, but only words that cannot hold a value."""
    if "no vault secrets found" in text:
        return "a vault, and no password for it"
    if "Decryption failed" in text:
        return "a vault, and a password that does not open it"
    for reason in _REASONS:
        match = reason.search(text)
        if match:
            return match[1].strip()
    return "a template that fails; Ansible's own words may hold values and are not repeated here"


def _remedy(text: str, path: Path) -> str:
    if "vault" in text.lower():
        return "give the vault's password: export ANSIBLE_VAULT_PASSWORD_FILE=PATH (or set it in ansible.cfg)"
    if _UNDEFINED.search(text):
        return "define it in the inventory or its group_vars: what only a playbook defines is not known here"
    return f"correct it, then try: ansible-inventory -i {path} --list"


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
