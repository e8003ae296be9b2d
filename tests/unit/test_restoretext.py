"""RESTORE.txt: the commands in it are what a shell runs, whatever the names are."""

from __future__ import annotations

import shlex

import pytest

from opsproof.archive.writing.restoretext import restore_text
from tests.lab.manifests import STEM, database_record, filestore_record, manifest_of

AWKWARD = ["it's", 'say "x"', "$(touch x)", "a;b|c&d", "a=b", "back\\slash", "Größe", "50%", "{id}", "two words"]


def commands(text: str, depth: int = 4) -> list[list[str]]:
    """Return the words of the commands that stand at a depth, as a shell would split them."""
    found, begun = [], ""
    for line in text.splitlines():
        # A line that begins inside a quotation goes on with the word of the line before.
        if begun or line.startswith("    "):
            try:
                words = shlex.split(begun + line)
                if len(begun + line) - len((begun + line).lstrip(" ")) == depth:
                    found.append(words)
                begun = ""
            except ValueError:
                begun += line + "\n"
    assert not begun
    return found


def test_the_steps_are_commands_in_order() -> None:
    programs = [words[0] for words in commands(restore_text(manifest_of()))]
    assert programs == ["unzip", "psql", "pg_restore", "psql", "mkdir", "cp", "chown", "chmod"]


def test_what_must_be_known_stands_in_it() -> None:
    text = restore_text(manifest_of())
    for words in ("acme", "prod", "erp", "2024-03-05 01:02:03 UTC", "PostgreSQL 15.18", "of PostgreSQL 15 ", "1,234"):
        assert words in text


def test_a_backup_without_files_says_so() -> None:
    text = restore_text(manifest_of(filestore=None))
    assert "keeps no files" in text
    assert "chown" not in text


@pytest.mark.parametrize("name", AWKWARD)
def test_the_databases_name_is_one_word_of_a_connection_string(name: str) -> None:
    text = restore_text(manifest_of(database=database_record(name=name)))
    analyze = next(words for words in commands(text) if words[-1] == "ANALYZE")
    assert analyze[analyze.index("-d") + 1] == "dbname='" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


@pytest.mark.parametrize("owner", AWKWARD)
def test_the_owners_name_is_one_identifier(owner: str) -> None:
    text = restore_text(manifest_of(database=database_record(owner=owner)))
    create = next(words for words in commands(text, 7) if words[-1].startswith("CREATE DATABASE"))
    quoted = '"' + owner.replace('"', '""') + '"'
    assert create[-1].startswith(f'CREATE DATABASE "NAME" OWNER {quoted} TEMPLATE template0 ')


@pytest.mark.parametrize("name", AWKWARD)
def test_the_filestores_path_and_owner_are_one_word_each(name: str) -> None:
    text = restore_text(manifest_of(filestore=filestore_record(path=f"/srv/{name}", owner=name, mode="2750")))
    by_program = {words[0]: words[1:] for words in commands(text)}
    assert by_program["mkdir"] == ["-p", f"/srv/{name}"]
    assert by_program["cp"] == ["-a", "filestore/.", f"/srv/{name}/"]
    assert by_program["chown"] == ["-R", f"{name}:odoo", f"/srv/{name}"]
    assert by_program["chmod"] == ["2750", f"/srv/{name}"]


@pytest.mark.parametrize("place", ["database", "owner", "environment", "target"])
def test_a_name_with_a_line_feed_makes_no_command(place: str) -> None:
    evil = "x\n    rm -rf /"
    if place in ("database", "owner"):
        field = "name" if place == "database" else "owner"
        manifest = manifest_of(database=database_record(**{field: evil}))
    else:
        manifest = manifest_of(**{place: evil})
    text = restore_text(manifest)
    assert "rm -rf" in text
    assert [words[0] for words in commands(text)] == [words[0] for words in commands(restore_text(manifest_of()))]


@pytest.mark.parametrize(
    ("provider", "words"),
    [("icu", "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'"), ("builtin", "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'de-DE'")],
)
def test_the_locales_provider_is_named(provider: str, words: str) -> None:
    text = restore_text(manifest_of(database=database_record(locale_provider=provider, locale="de-DE")))
    create = next(line for line in commands(text, 7) if line[-1].startswith("CREATE DATABASE"))
    assert create[-1].endswith(words)


def test_every_member_that_it_names_is_the_bundles_own() -> None:
    named = {word for words in commands(restore_text(manifest_of())) for word in words if STEM in word}
    assert named == {f"{STEM}.zip", f"{STEM}.dump"}
