"""Where a variable stands in the files of an Ansible inventory, for errors and for the run's header.

Values come from Ansible; this looks for the places only, by indentation. What it cannot place (flow style, a dynamic
inventory, an encrypted file) is answered with the file that it must be in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_KEY = re.compile(r"""^(\s*)(?:-\s+)?(["']?)([^\s"'#:][^"'#:]*)\2\s*:(?:\s|$)""")
_SUFFIXES = {"", ".yml", ".yaml", ".json"}


def where_is(inventory: Path, host: str, groups: Sequence[str], keys: Sequence[str]) -> tuple[str, int]:
    """Return file and line of a host's variable; the line is 0 where only the file is known.

    Args:
        inventory: The inventory's path.
        host: Whose variable it is.
        groups: The host's groups, the innermost first.
        keys: The variable's name, then the names below it if it is a mapping.

    Returns:
        The file relative to the inventory's folder. Of several places the one that Ansible prefers: host_vars/, the
        host in the inventory, group_vars/ of the innermost group, `vars:` of the innermost group.
    """
    base = inventory if inventory.is_dir() else inventory.parent
    sealed = ""
    for file, ancestors in _candidates(inventory, base, host, groups):
        name = str(file.relative_to(base))
        if is_encrypted(file):
            sealed = sealed or f"{name} (encrypted)"
            continue
        # `store.bucket` may stand in flow style, `store: {bucket: x}`: then the line of `store` is the place.
        for length in range(len(keys), 0, -1):
            line = _line_of(file, ancestors, tuple(keys[:length]))
            if line:
                return name, line
    for file in [*_inventory_files(inventory), *variable_files(inventory)]:
        lines = _lines(file)
        mentioned = (n for n, text in enumerate(lines, 1) if re.search(rf"\b{re.escape(keys[0])}\b\W*[:=]", text))
        line = next(mentioned, 0)
        if line:
            return str(file.relative_to(base)), line
    return sealed or inventory.name, 0


def variable_files(inventory: Path) -> list[Path]:
    """Return the files of group_vars/ and host_vars/ beside an inventory."""
    base = inventory if inventory.is_dir() else inventory.parent
    found = [path for folder in ("group_vars", "host_vars") for path in sorted((base / folder).rglob("*"))]
    return [path for path in found if path.is_file() and path.suffix in _SUFFIXES]


def is_encrypted(file: Path) -> bool:
    """Say whether a whole file is an Ansible vault."""
    return next(iter(_lines(file)), "").startswith("$ANSIBLE_VAULT")


def _candidates(
    inventory: Path, base: Path, host: str, groups: Sequence[str]
) -> Iterator[tuple[Path, tuple[str, ...] | None]]:
    """Yield files with the ancestors that the key must have in them, in Ansible's order of precedence."""
    own = _inventory_files(inventory)
    yield from ((file, None) for file in _variables_of(base / "host_vars", host))
    yield from ((file, ("hosts", host)) for file in own)
    for group in groups:
        yield from ((file, None) for file in _variables_of(base / "group_vars", group))
    for group in groups:
        yield from ((file, (group, "vars")) for file in own)


def _inventory_files(inventory: Path) -> list[Path]:
    if not inventory.is_dir():
        return [inventory]
    return [path for path in sorted(inventory.iterdir()) if path.is_file() and path.suffix in {*_SUFFIXES, ".ini"}]


def _variables_of(folder: Path, name: str) -> Iterator[Path]:
    for suffix in sorted(_SUFFIXES):
        path = folder / f"{name}{suffix}"
        if path.is_file():
            yield path
        elif path.is_dir() and not suffix:
            yield from (file for file in sorted(path.rglob("*")) if file.is_file() and file.suffix in _SUFFIXES)


def _line_of(file: Path, ancestors: tuple[str, ...] | None, keys: tuple[str, ...]) -> int:
    for line, path in _outline(file):
        if path[-len(keys) :] != keys:
            continue
        above = path[: -len(keys)]
        if (ancestors is None and not above) or (ancestors is not None and above[-len(ancestors) :] == ancestors):
            return line
    return 0


def _outline(file: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the line number and the path of keys of every `key:` in block style."""
    stack: list[tuple[int, str]] = []
    for number, text in enumerate(_lines(file), 1):
        match = _KEY.match(text)
        if match is None:
            continue
        indent = len(match[1])
        while stack and stack[-1][0] >= indent:
            stack.pop()
        stack.append((indent, match[3].strip()))
        yield number, tuple(key for _, key in stack)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
