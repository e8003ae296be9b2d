"""A release on its way to a host: unpacked under a hidden name, read again, and only then called a release."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from opsproof.errors import CommandFailed, HostError, ProofError
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.pipe import READ_BYTES
from opsproof.system.releases.layout import Releases
from opsproof.system.releases.package import Package, PackedFile

HASH_SECONDS = 3600.0
SHOWN = 5
KEPT = "what is live is as it was; nothing of the release is left"
# -z: a name may have anything in it. Python writes what it compiles beside its sources.
_HASHES = (
    'cd -- "$0" && find . -type f ! -path "*/__pycache__/*" -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum -z --'
)
_LINKS = 'cd -- "$0" && find . -type l -printf "%p\\0%l\\0"'


def upload(releases: Releases, name: str, package: Package) -> PurePosixPath:
    """Send a release to its host, hold it there against what was sent, and give it its name. Return its folder.

    Raises:
        HostError: It cannot be written; nothing of it is left.
        ProofError: It is not what was sent; nothing of it is left.
    """
    beside = releases.root / f".{name}.uploading"
    releases.mark(name)
    try:
        _unpack(releases, beside, package)
        _require_same(package.files, read_files(releases.host, beside), beside)
        # A power cut must not leave a current that leads to empty files; sync is coreutils', and says no to no one.
        releases.host.run("sync", "-f", str(beside), timeout=HASH_SECONDS)
        releases.host.run("mv", "-T", "--", str(beside), str(releases.path(name)))
    except BaseException:
        releases.remove(name)
        raise
    return releases.path(name)


def room_for(releases: Releases) -> int:
    """Return how many bytes the account may still write in the folder.

    Raises:
        HostError: The folder cannot be looked at.
    """
    done = releases.host.run("df", "--output=avail", "-B1", "--", str(releases.folder))
    return int(done.stdout.split()[-1])


def read_files(host: Host, folder: PurePosixPath) -> dict[str, PackedFile]:
    """Return every file and link below a folder of a host; every file is read to its end.

    Raises:
        HostError: One cannot be read.
    """
    hashes = host.run("sh", "-c", _HASHES, str(folder), timeout=HASH_SECONDS).stdout
    links = host.run("sh", "-c", _LINKS, str(folder), timeout=HASH_SECONDS).stdout
    found = {line[66:].removeprefix("./"): PackedFile(line[:64]) for line in hashes.split("\0") if line}
    words = links.split("\0")[:-1]
    found |= {
        path.removeprefix("./"): PackedFile(link=target) for path, target in zip(words[::2], words[1::2], strict=True)
    }
    return found


def _unpack(releases: Releases, beside: PurePosixPath, package: Package) -> None:
    # The time of its files is that of the upload: browsers, and Odoo's bundles of scripts and styles, take a file of
    # the same name and time for the same file.
    script = 'mkdir -- "$0" && exec tar --extract --touch --no-same-owner --directory="$0" --file=-'
    try:
        with releases.host.pipe("sh", "-c", script, str(beside), feed=True) as pipe, package.tar.open("rb") as tar:
            while piece := tar.read(READ_BYTES):
                pipe.write(piece)
            pipe.end_input()
            while pipe.read():
                pass
            pipe.finish(timeout=HASH_SECONDS)
    except CommandFailed as error:
        place = shlex.quote(str(releases.folder))
        raise HostError(
            f"The release could not be written to {releases.root}",
            expected=f"room for {package.bytes:,} bytes in {len(package.files):,} files, and the right to write there",
            found=error.found,
            kept=KEPT,
            hint=f"df -h {place}; df -i {place}; ls -ld {place}",
        ) from error


def _require_same(sent: Mapping[str, PackedFile], found: Mapping[str, PackedFile], where: PurePosixPath) -> None:
    wanted = {path: (one.sha256, one.link) for path, one in sent.items() if "__pycache__" not in path.split("/")}
    there = {path: (one.sha256, one.link) for path, one in found.items() if "__pycache__" not in path.split("/")}
    if wanted == there:
        return
    wrong = [f"{path}: {_how(path, wanted, there)}" for path in sorted(wanted.keys() | there.keys())
             if wanted.get(path) != there.get(path)]  # fmt: skip
    raise ProofError(
        "The release on the host is not what was sent",
        expected=f"{len(wanted):,} files with the SHA-256 of those that were sent",
        found="\n".join([f"{len(wrong):,} differ below {where}", *wrong[:SHOWN]]),
        kept=KEPT,
        hint="run it again; if it differs twice, the host's disk or somebody at work there changes files",
    )


def _how(path: str, wanted: Mapping[str, object], there: Mapping[str, object]) -> str:
    if path not in there:
        return "missing"
    return "another content" if path in wanted else "nobody has sent it"
