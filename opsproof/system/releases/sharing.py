"""What releases share: paths below each of them that lead to those below `shared/`."""

from __future__ import annotations

import shlex

from opsproof.errors import HostError, ProofError
from opsproof.system.releases.layout import Releases

_OUTSIDE = 9
# What is in the release under a shared path goes: what is shared takes its place. So the way there must not leave the
# release, by a link of it, or by a path above that was shared a moment ago: all that is shared would go.
_SHARE = """
cd -- "$0" && own=$(pwd -P) || exit
above=$(readlink -m -- "$(dirname -- "$2")") || exit
case $above/ in "$own"/*) ;; *) printf '%s\\n' "$above"; exit 9 ;; esac
mkdir -p -- "$1/$(dirname -- "$2")" "$(dirname -- "$2")" || exit
if [ ! -e "$1/$2" ]; then
  if [ -f "$2" ] && [ "$3" != folder ]; then cp -p -- "$2" "$1/$2" || exit
  else mkdir -- "$1/$2" || exit
  fi
fi
rm -rf -- "$2" && ln -s -- "$1/$2" "$2"
"""


def share(releases: Releases, name: str, path: str) -> None:
    """Let a path of a release lead to what all releases share.

    Args:
        releases: Where.
        name: The release.
        path: Below it, and below `shared/`; one that ends in a slash is a folder, made where it is not there yet.

    Raises:
        ProofError: The way to it leads out of the release.
        HostError: It cannot be made.
    """
    own, kind = path.rstrip("/"), "folder" if path.endswith("/") else ""
    folder, shared = str(releases.path(name)), str(releases.shared)
    done = releases.host.run("sh", "-c", _SHARE, folder, shared, own, kind, accept=range(256))
    if done.status == _OUTSIDE:
        raise ProofError(
            f"{path} cannot be shared: the way to it leads out of the release",
            expected="real folders above it in the release, none of them shared itself",
            found=f"{own.rpartition('/')[0]} leads to {done.stdout.strip()}",
            kept="what is live, and all that is shared, is as it was",
            hint=f"deploy: {{shared: [...]}} of the inventory, without {path}; or take the link out of the release",
        )
    if done.status != 0:
        raise HostError(
            f"{path} of the release could not be made to lead to {shared}",
            expected="a folder that the deploy_user may write",
            found=done.stderr.strip(),
            kept="what is live is as it was",
            hint=f"ls -ld {shlex.quote(shared)} {shlex.quote(f'{shared}/{own}')}",
        )
