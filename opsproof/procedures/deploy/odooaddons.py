"""Where Odoo looks for its modules: odoo.conf's addons_path, with a release in the place of `current`."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from opsproof.errors import ConfigurationError, ProofError
from opsproof.odoo import parse_odoo_conf
from opsproof.system.hosts.host import Host
from opsproof.target import Target

# Of its arguments, where each really is; what is not there yet may be named, too.
_RESOLVE = 'for one; do readlink -m -- "$one"; done'
# On the command line Odoo refuses a folder without any module, as an image's empty /mnt/extra-addons is; in odoo.conf
# it does not.
_HAVE_MODULES = """
for one; do
  for found in "$one"/*/__manifest__.py "$one"/*/__openerp__.py; do
    if [ -f "$found" ] && [ -f "${found%/*}/__init__.py" ]; then printf '%s\\n' "$one"; break; fi
  done
done
"""
# $0: the folders, a line each. Of its arguments, the modules that are in none of them.
_LACKING = """
for one; do
  is_there=
  while IFS= read -r folder; do
    [ -f "$folder/$one/__manifest__.py" ] || [ -f "$folder/$one/__openerp__.py" ] || continue
    is_there=yes
    break
  done <<END
$0
END
  [ -n "$is_there" ] || printf '%s\\n' "$one"
done
"""


class Addons:
    """The folders with modules of one target's Odoo, as they are with a release.

    Args:
        target: Whose Odoo.
        host: Where that is, as its account.
        release: The release's folder.
        program: Odoo's command, which finds the modules beside it by itself.
    """

    def __init__(self, target: Target, host: Host, release: PurePosixPath, program: str) -> None:
        self._target = target
        self._host = host
        self._release = str(release)
        self._conf = target.odoo_conf or ""
        self.said = self._read()
        self._program = posixpath.normpath(program)

    def folders(self) -> tuple[str, ...]:
        """Return the folders of addons_path that Odoo is to be told, in their order; none where `current` is not there.

        Raises:
            HostError: The host cannot be asked.
        """
        changed = [self._with_release(one) for one in self.said]
        if changed == list(self.said):
            return ()
        return tuple(self._host.run("sh", "-c", _HAVE_MODULES, "sh", *changed).stdout.splitlines())

    def require(self, modules: Collection[str]) -> None:
        """See to it that Odoo looks for modules in the release: it passes over one that it does not find, in silence.

        Raises:
            ConfigurationError: It does not.
        """
        lacking = self._lacking([*self._of_release(self.folders()), *self._beside_program()], modules)
        if lacking:
            raise ConfigurationError(
                "Odoo does not look for modules in the release",
                expected=f"{', '.join(lacking)} in a folder of addons_path that is below"
                f" {self._target.deploy_folder}/current, and that Odoo's account may read",
                found=f"addons_path = {','.join(self.said) or 'nothing'}, in {self._conf or 'no odoo.conf'}",
                kept="what is live is as it was",
                hint=f"addons_path = {self._target.deploy_folder}/current/addons,...   in odoo.conf;"
                " or `deploy: {database: none}` in the inventory",
            )

    def require_elsewhere(self, modules: Collection[str]) -> None:
        """See to it that modules which are installed, and are not in the release any more, are in another place.

        Raises:
            ProofError: One is in none: Odoo would start without it, and with the views that need it.
        """
        elsewhere = [one for one in self.said if self._with_release(one) == one]
        lacking = self._lacking([*self.folders(), *elsewhere, *self._beside_program()], modules)
        if lacking:
            raise ProofError(
                "The release lacks modules that are installed",
                expected="every installed module of the live release in this one, too, or in another folder of Odoo's",
                found=", ".join(lacking),
                kept="what is live is as it was",
                hint="uninstall them in Odoo first, or keep them in the release",
            )

    def _read(self) -> tuple[str, ...]:
        if not self._conf:
            return ()
        text = self._host.run("cat", "--", self._conf).stdout
        return tuple(posixpath.normpath(one) for one in parse_odoo_conf(text, self._conf).addons_path)

    def _with_release(self, folder: str) -> str:
        """Return a folder as it is in the release, if the way to it leads through `current`, by a link as well."""
        root = posixpath.normpath(self._target.deploy_folder or "/")
        below = _below(folder, f"{root}/current")
        if below is None and _below(folder, f"{root}/releases") is None:
            really, current = self._host.run("sh", "-c", _RESOLVE, "sh", folder, f"{root}/current").stdout.splitlines()
            below = _below(really, current)
        return folder if below is None else f"{self._release}{below}"

    def _of_release(self, folders: Sequence[str]) -> list[str]:
        return [one for one in folders if _below(one, self._release) is not None]

    def _beside_program(self) -> list[str]:
        if _below(self._program, self._release) is None:
            return []
        return [f"{posixpath.dirname(self._program)}/{one}" for one in ("addons", "odoo/addons")]

    def _lacking(self, folders: Sequence[str], modules: Collection[str]) -> tuple[str, ...]:
        if not modules:
            return ()
        return tuple(self._host.run("sh", "-c", _LACKING, "\n".join(folders), *modules).stdout.splitlines())


def _below(path: str, folder: str) -> str | None:
    """Return what of a path is behind a folder: empty for the folder itself, None where it is not below it."""
    if path == folder or path.startswith(f"{folder}/"):
        return path[len(folder) :]
    return None
