"""Client programs that misbehave: a folder for `pg_bindir` in which one program is a script around the real one."""

from __future__ import annotations

from pathlib import Path

PROGRAMS = ("pg_dump", "pg_restore", "psql", "pg_dumpall")

KILLED_MIDWAY = '"$REAL" "$@" | { head -c 30000; kill -KILL $$; }'
FAILS_AFTER_A_WHOLE_DUMP = '"$REAL" "$@"; echo "pg_dump: error: could not sync: quota exceeded" >&2; exit 1'
ENDS_WELL_HALFWAY = '"$REAL" "$@" | head -c 60000; exit 0'
# What is told here goes on when the file `go` appears; `reached` tells that it waits.
WAITS_MIDWAY = """\
mkfifo "$HERE/fifo"
"$REAL" "$@" > "$HERE/fifo" & real=$!
{ head -c 30000; touch "$HERE/reached"; while [ ! -e "$HERE/go" ]; do sleep 0.02; done; cat; } < "$HERE/fifo"
rm "$HERE/fifo"
wait $real"""
# A dump that takes some seconds, in pieces.
SLOW = (
    '"$REAL" "$@" | while head -c 40000 > "$HERE/piece" && [ -s "$HERE/piece" ]; do cat "$HERE/piece"; sleep 0.1; done'
)


def wrap_clients(folder: Path, bindir: Path, **scripts: str) -> Path:
    """Return a folder with the programs of `bindir`, some of them wrapped.

    Args:
        folder: Where to make it; `$HERE` in the scripts.
        bindir: The real programs.
        scripts: program -> what `sh` runs in its place, except for `--version`; `$REAL` is the real one.
    """
    folder.mkdir()
    for program in PROGRAMS:
        path, real = folder / program, bindir / program
        if program not in scripts:
            path.symlink_to(real)
            continue
        path.write_text(
            f"#!/bin/sh\nREAL='{real}'\nHERE='{folder}'\n"
            f'case "$*" in *--version*) exec "$REAL" "$@";; esac\n{scripts[program]}\n'
        )
        path.chmod(0o755)
    return folder
