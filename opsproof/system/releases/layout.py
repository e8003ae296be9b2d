"""The releases of an application, as Capistrano and Ansistrano lay them out: `releases/`, `shared/`, `current`.

`current` is read as a link and never guessed by anybody's modification time; it changes hands by a rename. What is
being uploaded, or removed, has a hidden name, and a release that was never brought to its end a marker beside it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from opsproof.errors import CommandFailed, HostError, ProofError
from opsproof.system.hosts.host import Completed, Host
from opsproof.system.releases.ledger import Entry, Ledger, read_ledger, write_entry

STAMP = "%Y%m%d%H%M%S"
NAME = re.compile(r"\d{14}Z?")  # Ansistrano's have a Z
REMOVE_SECONDS = 1800.0
_SECOND = timedelta(seconds=1)
_NEXT = ".current.opsproof"
_HIDDEN = re.compile(r"\.(\d{14}Z?)\.(uploading|removing|unfinished)")
# What `current` is, where it leads to, and where `releases` really is; then what is in there.
_LOOK = """
cd -- "$0" || exit 3
if [ -L current ]; then echo link; readlink -f -- current || echo
elif [ -e current ]; then echo other; echo
else echo none; echo; fi
readlink -f -- releases || echo
[ ! -d releases ] || ls -1A releases
"""
# All of a flip but its last command, which is all that the outage has to wait for.
_PREPARE = """
cd -- "$0" && [ -d "releases/$1/." ] || { echo "there is no releases/$1" >&2; exit 4; }
if [ -e current ] && [ ! -L current ]; then echo 'current is no link' >&2; exit 5; fi
rm -f -- "$2" && ln -s -- "releases/$1" "$2"
"""
_LOCK = ".opsproof-lock"
_HOLD = 'mkdir -p -- "$0" && exec flock -n -E 75 -- "$1" sh -c "echo held; read -r line; true"'
_REMOVE = 'cd -- "$0" || exit; [ ! -e "$1" ] || mv -T -- "$1" "$2"; rm -rf -- "$2"'


@dataclass(frozen=True)
class Layout:
    """What is there.

    Attributes:
        current: The release that `current` leads to; empty where there is no such link.
        names: The releases that are there, oldest first by their names.
        hidden: The names of what is being uploaded or removed, or was never brought to its end.
    """

    current: str
    names: tuple[str, ...]
    hidden: tuple[str, ...]

    @property
    def dangles(self) -> bool:
        """Tell whether `current` leads to a release that is gone."""
        return bool(self.current) and self.current not in self.names


class Releases:
    """The releases below one folder of a host.

    Args:
        host: Where they are, as the account that they belong to.
        folder: `deploy_folder`.
    """

    def __init__(self, host: Host, folder: str) -> None:
        self.host = host
        self.folder = PurePosixPath(folder)
        self.root = self.folder / "releases"
        self.shared = self.folder / "shared"
        self._prepared = ""

    def path(self, name: str) -> PurePosixPath:
        """Return a release's own folder."""
        return self.root / name

    def look(self) -> Layout:
        """Return what is there.

        Raises:
            ProofError: There is no such folder, or `current` is not a link to one of its releases.
            HostError: The host cannot be reached.
        """
        done = self.host.run("sh", "-c", _LOOK, str(self.folder), accept=(0, 3))
        if done.status == 3:
            raise ProofError(
                f"There is no folder {self.folder}, or it cannot be entered",
                expected="deploy_folder, with the releases in it",
                found=done.stderr.strip() or "no such folder",
                kept="nothing was changed",
                hint=self.make_command(),
            )
        kind, leads_to, root, *listed = done.stdout.split("\n")
        names = tuple(sorted(one for one in listed if NAME.fullmatch(one)))
        hidden = tuple(sorted(one for one in listed if _HIDDEN.fullmatch(one)))
        if kind == "other":
            raise ProofError(
                f"{self.folder}/current is a real folder or file",
                expected="a symbolic link to a release, or nothing",
                found="no link: flipping it would destroy what is in it",
                kept="nothing was changed",
                hint=f"mkdir -p {self.root} && mv {self.folder}/current {self.root}/20000101000000"
                f" && ln -s releases/20000101000000 {self.folder}/current",
            )
        if kind == "none":
            return Layout("", names, hidden)
        place = PurePosixPath(leads_to or "/")
        if str(place.parent) != root or not NAME.fullmatch(place.name):
            raise ProofError(
                f"{self.folder}/current leads to no release",
                expected=f"a link to a folder of {self.root} named by its time, as in 20260131020000",
                found=leads_to or "a link that leads nowhere",
                kept="nothing was changed",
                hint=f"ls -l {self.folder}/current {self.root}   and let it lead to the release that is live",
            )
        return Layout(place.name, names, hidden)

    def make_command(self) -> str:
        """Return what makes the folder, for whoever may."""
        owner = self.host.user or "$(id -un)"
        return f"sudo install -d -o {shlex.quote(owner) if self.host.user else owner} {shlex.quote(str(self.folder))}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others off these releases for as long as the block lasts: two databases may have them in common.

        The host holds it for as long as a shell there waits for its input, which ends with the connection.

        Raises:
            HostError: Somebody is at work on them, or the folder cannot be written.
        """
        path = self.root / _LOCK
        with self.host.pipe("sh", "-c", _HOLD, str(self.root), str(path), feed=True) as holder:
            if holder.read().strip() != b"held":
                try:
                    holder.finish()
                except CommandFailed as error:
                    raise self._not_held(error) from error
            yield
            holder.end_input()
            while holder.read():
                pass

    def _not_held(self, error: CommandFailed) -> HostError:
        # flock itself says nothing where somebody has the lock.
        is_busy = "nothing on stderr" in error.found
        return HostError(
            f"{self.root} is another run's at the moment" if is_busy else f"{self.root} cannot be written",
            expected="one run at a time, and a folder that the deploy_user may write",
            found=f"a process that holds {self.root / _LOCK}" if is_busy else error.found,
            kept="what is live is as it was",
            hint="wait for the other run, or end it, then run this again"
            if is_busy
            else f"ls -ld {self.folder} {self.root}; df -h {self.folder}\n{self.make_command()}",
        )

    def next_name(self, taken: Iterable[str]) -> str:
        """Return the name of a new release: the time in UTC, later than that of any other, whatever the clock says.

        What is pruned is the oldest by their names: a clock may have been ahead, or this one be behind.
        """
        moment = datetime.now(UTC)
        for one in taken:
            with suppress(ValueError, OverflowError):  # somebody's fourteen digits that are no time
                moment = max(moment, datetime.strptime(one.rstrip("Z"), STAMP).replace(tzinfo=UTC) + _SECOND)
        return moment.strftime(STAMP)

    def prepare_flip(self, name: str) -> None:
        """Make the link that is to take the place of `current`, beside it.

        Raises:
            ProofError: `current` is a real folder, or there is no such release.
            HostError: It cannot be made.
        """
        done = self.host.run("sh", "-c", _PREPARE, str(self.folder), name, _NEXT, accept=range(256))
        if done.status in (4, 5):
            raise ProofError(
                f"current cannot lead to {name}",
                expected=f"a release {self.path(name)}, and a link, or nothing, at {self.folder}/current",
                found=done.stderr.strip(),
                kept="current is as it was",
                hint=f"ls -l {self.folder} {self.root}",
            )
        self._require_done(name, done)
        self._prepared = name

    def flip(self, name: str) -> None:
        """Let `current` lead to a release: a link beside it takes its place in one rename.

        Raises:
            ProofError: `current` is a real folder, or there is no such release.
            HostError: It cannot be done; `current` is as it was.
        """
        if self._prepared != name:
            self.prepare_flip(name)
        self._prepared = ""
        # A rename does not replace a folder by a link, whoever has made one meanwhile.
        link, current = str(self.folder / _NEXT), str(self.folder / "current")
        self._require_done(name, self._rename(link, current))

    def _rename(self, link: str, current: str) -> Completed:
        if not self.host.is_local:
            return self.host.run("mv", "-T", "--", link, current, accept=range(256))
        try:
            # As mv does it, without the milliseconds that a process takes to start.
            Path(link).replace(current)
        except OSError as error:
            return Completed(1, "", str(error))
        return Completed(0, "", "")

    def _require_done(self, name: str, done: Completed) -> None:
        if done.status != 0:
            raise CommandFailed(
                f"current could not be made to lead to {name}",
                expected=f"to write in {self.folder}",
                found=done.stderr.strip(),
                kept="current is as it was",
                hint=f"ls -ld {self.folder}; df -h {self.folder}; df -i {self.folder}",
            )

    def forget_flip(self) -> None:
        """Remove the link that was made for a flip which does not take place."""
        self._prepared = ""
        self.host.run("rm", "-f", "--", str(self.folder / _NEXT))

    def unlink(self) -> None:
        """Take `current` away: before the first deploy there was none."""
        self.host.run("sh", "-c", '[ ! -L "$0" ] || rm -f -- "$0"', str(self.folder / "current"))

    def mark(self, name: str) -> None:
        """Mark a release that is only being made."""
        script = 'mkdir -p -- "$0" && : >"$0/$1"'
        done = self.host.run("sh", "-c", script, str(self.root), f".{name}.unfinished", accept=range(256))
        if done.status != 0:
            raise HostError(
                f"{self.root} cannot be written",
                expected="a folder that the deploy_user may write, with room",
                found=done.stderr.strip(),
                kept="what is live is as it was",
                hint=f"ls -ld {self.folder} {self.root}; df -h {self.folder}; df -i {self.folder}"
                f"\n{self.make_command()}",
            )

    def unmark(self, name: str) -> None:
        """Say that a release was brought to its end."""
        self.host.run("rm", "-f", "--", str(self.root / f".{name}.unfinished"))

    def remove(self, name: str) -> None:
        """Remove a release, and all that is left of its making; never the current one.

        Raises:
            ProofError: It is the current one.
            HostError: Something of it cannot be removed.
        """
        if self.look().current == name:
            raise ProofError(
                f"Release {name} is not removed: it is the current one",
                expected="another one",
                found=f"{self.folder}/current leads to it",
                kept="everything",
                hint=f"readlink -f {self.folder}/current",
            )
        for own in (name, f".{name}.uploading"):
            self.host.run("sh", "-c", _REMOVE, str(self.root), own, f".{name}.removing", timeout=REMOVE_SECONDS)
        self.unmark(name)

    def clear_unfinished(self) -> list[str]:
        """Remove what runs that were killed have left; only where the target's lock is held. Return which releases.

        Raises:
            HostError: Something of it cannot be removed.
        """
        self.forget_flip()
        layout, removed = self.look(), []
        for name in sorted({match[1] for one in layout.hidden if (match := _HIDDEN.fullmatch(one))}):
            if name == layout.current:
                self.unmark(name)
            elif f".{name}.unfinished" in layout.hidden or name not in layout.names:
                self.remove(name)
                removed.append(name)
            else:  # one that was finished long ago, and whose folder of another attempt is left
                self.host.run(
                    "rm", "-rf", "--", *(str(self.root / f".{name}.{one}") for one in ("uploading", "removing"))
                )
        return removed

    def prune(self, keep: int, also: Collection[str]) -> list[str]:
        """Remove the oldest releases; the current one, and those that are named, stay. Return which went.

        Raises:
            HostError: One cannot be removed.
        """
        layout = self.look()
        stay = {*layout.names[-keep:], layout.current, *also}
        gone = [one for one in layout.names if one not in stay]
        for name in gone:
            self.remove(name)
        return gone

    def ledger(self) -> Ledger:
        """Return the ledger.

        Raises:
            HostError: It cannot be read.
        """
        return read_ledger(self.host, str(self.root))

    def write_down(self, entry: Entry) -> None:
        """Add a line to the ledger.

        Raises:
            HostError: It cannot be written.
        """
        write_entry(self.host, str(self.root), entry)

    def revision_of(self, name: str) -> str:
        """Return what a release's file REVISION says; empty where it has none."""
        script = '[ ! -f "$0" ] || head -n 1 -- "$0"'
        return self.host.run("sh", "-c", script, str(self.path(name) / "REVISION")).stdout.strip()
