"""What Ansible complains about: where, why, what to type; never the lines that it quotes, which may hold secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from opsproof.errors import ConfigurationError
from opsproof.inventory.ansiblecommand import run_ansible
from opsproof.inventory.files import is_encrypted, variable_files

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


def explain_unreadable(path: Path, stderr: str, environ: Mapping[str, str]) -> ConfigurationError:
    """Return why Ansible cannot read an inventory, from what it said on stderr."""
    # Ansible names the line of a broken inventory, but neither file nor line of a broken or sealed variable file.
    origin = find_origin(path, stderr)
    if not origin and "vault" in stderr.lower():
        base = path if path.is_dir() else path.parent
        origin = ", ".join(str(file.relative_to(base)) for file in variable_files(path) if is_encrypted(file))
    elif not origin and "YAML" in stderr:
        origin = next(filter(None, (_broken_line(path, file, environ) for file in variable_files(path))), "")
    return ConfigurationError(
        f"Ansible cannot read the inventory {path}",
        expected="an inventory that `ansible-inventory` reads",
        found=find_cause(stderr) + (f" ({origin})" if origin else ""),
        hint=find_remedy(stderr, path),
    )


def _broken_line(path: Path, file: Path, environ: Mapping[str, str]) -> str:
    """Return where a variable file is broken, by giving it to Ansible alone, which then names the line."""
    if is_encrypted(file):
        return ""
    # `auto` first: the plugin that reads a file first is the one that tells the line.
    alone = {**environ, "ANSIBLE_INVENTORY_ENABLED": "auto,yaml"}
    done = run_ansible("ansible-inventory", ["-i", str(file.absolute()), "--list"], alone)
    return find_origin(path, done.stderr) if "YAML" in done.stderr else ""


def find_origin(path: Path, text: str) -> str:
    """Return `file:line` from Ansible's complaint; the lines that it quotes may hold secrets and stay out."""
    match = _ORIGIN.search(text) or _ORIGIN_BEFORE_2_19.search(text)
    if match is None:
        return ""
    base = (path if path.is_dir() else path.parent).absolute()
    file = Path(match[1])
    return f"{file.relative_to(base) if file.is_relative_to(base) else file}:{match[2]}"


def place_of(file: str, line: int) -> str:
    """Return `file:line`, or the file alone."""
    return f"{file}:{line}" if line else file


def find_cause(text: str) -> str:
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


def find_remedy(text: str, path: Path) -> str:
    """Return what to type."""
    if "vault" in text.lower():
        return "give the vault's password: export ANSIBLE_VAULT_PASSWORD_FILE=PATH (or set it in ansible.cfg)"
    if _UNDEFINED.search(text):
        return "define it in the inventory or its group_vars: what only a playbook defines is not known here"
    return f"correct it, then try: ansible-inventory -i {path} --list"
