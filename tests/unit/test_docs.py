"""The documentation, held against what there is: links, imports, settings, options and checks."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from opsproof.inventory import asked, schema

REPOSITORY = Path(__file__).parents[2]
TEXTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
CONFIGURATION = (REPOSITORY / "docs" / "reference" / "configuration.md").read_text()
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub and GitLab give to the headings of a text."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.strip().lower()).replace(" ", "-") for one in headings}


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield each fenced block of a language, with the text that it is in."""
    for path in TEXTS:
        for found, code in FENCED.findall(path.read_text()):
            if found == language:
                yield named(path), code


def imported() -> set[tuple[str, str, str]]:
    """Return text, module and name of everything of ours that code in the documentation imports."""
    found = set()
    for text, code in blocks("python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("opsproof"):
                found |= {(text, str(node.module), alias.name) for alias in node.names}
    return found


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", path.read_text())):
        place, _, anchor = link.partition("#")
        if ":" in place:
            continue
        there = path.parent / place if place else path
        if not there.exists() or (anchor and anchor not in anchors(there.read_text())):
            dead.append(link)
    assert dead == []


def test_what_code_imports_is_there() -> None:
    assert len(imported()) >= 4
    for text, module, name in sorted(imported()):
        assert hasattr(importlib.import_module(module), name), f"{text}: from {module} import {name}"


def test_every_setting_is_in_the_reference() -> None:
    models: list[type[BaseModel]] = [schema.HostVariables, schema.StoreVariables]
    models += [model for name, model in vars(asked).items() if name.endswith("Variables")]
    missing = [
        f"{model.__name__}.{field}"
        for model in models
        for field in model.model_fields
        if not re.search(rf"[`{{ ]{field}[`:]", CONFIGURATION)
    ]
    assert missing == []


def test_every_option_is_in_the_reference() -> None:
    options = re.findall(r'"(--[a-z-]+)"', (REPOSITORY / "opsproof" / "plugin" / "options.py").read_text())
    assert len(options) > 30
    assert [one for one in dict.fromkeys(options) if not re.search(rf"{one}\b(?!-)", CONFIGURATION)] == []


def test_every_check_is_in_the_reference() -> None:
    told = "".join((REPOSITORY / "docs" / name).read_text() for name in ("reference/checks.md", "how-to/verify.md"))
    checks = [
        name for path in REPOSITORY.glob("checks/test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    ]
    assert len(checks) > 30
    assert [name for name in checks if f"`{name}`" not in told] == []


def test_rows_of_tables_have_as_many_cells_as_their_heads() -> None:
    odd = []
    for path in TEXTS:
        wanted = 0
        for number, line in enumerate(
            FENCED.sub(lambda one: "\n" * one[0].count("\n"), path.read_text()).splitlines(), 1
        ):
            # What stands in backticks, and a pipe that is escaped, is a cell's own.
            cells = re.sub(r"`[^`]*`|\\\|", "", line).strip().strip("|").count("|") + 1 if line.startswith("|") else 0
            if cells and wanted and cells != wanted:
                odd.append(f"{named(path)}:{number}")
            wanted = wanted or cells if cells else 0
    assert odd == []
