"""The table for those who come from playbooks or scripts: each row has a command, and each command can be typed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_options import read

REPOSITORY = Path(__file__).parents[2]
TABLE = REPOSITORY / "docs" / "reference" / "coming-from.md"
# pytest's own, and its plugins'.
OTHERS = ("--junitxml=",)
LISTINGS = ("--list-backups", "--list-targets")


def rows() -> list[list[str]]:
    """Return the cells of every row, the heads left out."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0] != "there"]


def commands() -> list[str]:
    """Return every command once."""
    return list(dict.fromkeys(row[-1].strip("`") for row in rows()))


def one_of_each_kind() -> list[str]:
    """Return a command for each action, check, listing and module: each takes seconds to start."""
    kinds: dict[tuple[str, ...], str] = {}
    for command in commands():
        words = [word for word in shlex.split(command) if not re.match(r"[A-Z_0-9]+=", word)]
        kinds.setdefault(tuple(word for word in words if not word.startswith("--") or word in LISTINGS), command)
    return list(kinds.values())


def test_every_row_has_a_command() -> None:
    assert len(rows()) > 80
    assert all(len(row) == 3 and re.fullmatch(r"`[^`]+`", row[2]) for row in rows())


@pytest.mark.parametrize("command", commands())
def test_a_command_names_what_there_is(command: str) -> None:
    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_0-9]+=", word)]
    if words[:2] == ["python", "-m"]:
        assert (REPOSITORY / f"{words[2].replace('.', '/')}.py").is_file()
        return
    assert words[0] == "pytest"
    files = [word for word in words[1:] if not word.startswith("--")]
    assert all((REPOSITORY / file).is_file() for file in files)
    options = [word for word in words[1:] if word.startswith("--") and not word.startswith(OTHERS)]
    said = read(*options)
    assert said.environment != "demo"
    assert files or said.list_backups or said.list_targets


@pytest.mark.slow
@pytest.mark.parametrize("command", one_of_each_kind())
def test_a_command_can_be_collected(command: str, tmp_path: Path) -> None:
    """In a process of its own: what it would run is there, and nothing is run."""
    words = shlex.split(command)
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_0-9]+=", word))
    words = [word for word in words if not re.match(r"[A-Z_0-9]+=", word)]
    if words[0] == "python":
        argv = [sys.executable, *words[1:3], "--help"]
    else:
        inventory = tmp_path / "hosts.yml"
        target = "      ansible_connection: local\n      database_url: postgresql://u@127.0.0.1:1/shop\n"
        target += f"      deploy_folder: {tmp_path}\n"
        stored = "customer: acme" if "S3_BUCKET" in variables else f"backup_dir: {tmp_path}/backups"
        target += f"      {stored}\n"
        names = {"prod": "erp", "staging": "shop", "production": "shop"}
        inventory.write_text("".join(f"{env}:\n  hosts:\n    {name}_{env}:\n{target}" for env, name in names.items()))
        inventory.write_text(inventory.read_text().replace("erp_prod", "erp").replace("shop_production", "shop"))
        own = [] if "--env=any" in words else [f"--inventory={inventory}"]
        listing = [] if set(LISTINGS) & set(words) else ["--collect-only"]
        argv = [sys.executable, "-m", "pytest", *words[1:], *own, *listing, "-q", "-p", "no:cacheprovider"]
        argv += [f"--logs={tmp_path}/logs", f"--junitxml={tmp_path}/junit.xml"]
        (tmp_path / "own.py").write_text("class settings: DATABASE_URL = 'postgresql://u@127.0.0.1:1/shop'\n")
        argv = [word.replace("tests.lab.own_settings", "own") for word in argv]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": f"{REPOSITORY}:{tmp_path}", **variables}
    run = subprocess.run(argv, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
