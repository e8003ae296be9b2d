"""The disk that every lab host starts from: Debian 11 with systemd, sshd, PostgreSQL 13 and Odoo 14, from Debian alone.

It is built once in a cache folder (`OPSPROOF_LAB_DIR`, else `opsproof-lab` in the user's cache folder), in a folder
named by a hash of what it was built from, and only ever read afterwards: each host writes to a layer of its own.
`python -m tests.lab.debian_base` builds it ahead of the first test that needs it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opsproof.errors import CommandFailed, HostError, ProgramMissing

SUITE = "bullseye"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "cron", "logrotate"),
    *("openssh-server", "sudo", "iproute2", "iputils-ping", "procps", "ca-certificates", "curl", "rsync", "less"),
    *("python3", "postgresql", "odoo-14"),
)
DATABASE = "prod"
MODULES = "base,web,mail"
# Without a db_name, as Debian's own: Odoo serves whatever databases its role may see.
ODOO_CONF = """\
[options]
db_user = odoo
data_dir = /var/lib/odoo
http_interface = 0.0.0.0
list_db = True
"""
PROVISION = f"""\
set -eu
cd /
useradd --create-home --shell /bin/bash ops
install -d -m 700 -o ops -g ops /home/ops/.ssh
install -m 600 -o ops -g ops ~root/.ssh/authorized_keys /home/ops/.ssh/authorized_keys
echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops
chmod 440 /etc/sudoers.d/ops
systemctl disable apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer rsync.service
version=$(ls /etc/postgresql)
pg_ctlcluster "$version" main start
su postgres -c "psql -Xqc 'DROP ROLE IF EXISTS odoo'"
su postgres -c 'createuser --createdb --no-createrole --no-superuser odoo'
su -s /bin/sh odoo -c 'odoo -c /etc/odoo/odoo.conf -d {DATABASE} -i {MODULES} --stop-after-init --no-http \\
    --logfile /var/log/odoo/init.log'
pg_ctlcluster "$version" main stop
"""
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
BOOTSTRAP_SECONDS = 1800
PROVISION_SECONDS = 900
TAIL = 2000


@dataclass(frozen=True)
class DebianBase:
    """A base that is built.

    Attributes:
        folder: Where its disk and its key are.
    """

    folder: Path

    @property
    def root(self) -> Path:
        """The disk, read by every host."""
        return self.folder / "root"

    @property
    def key(self) -> Path:
        """The private ssh key that root and ops of every host accept."""
        return self.folder / "key"

    @property
    def host_key(self) -> str:
        """The public key of every host's sshd, as a line of known_hosts has it after the name."""
        words = (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
        return " ".join(words[:2])


def lab_folder() -> Path:
    """Return where bases and hosts are kept; it is made where it is missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("OPSPROOF_LAB_DIR") or cache / "opsproof-lab").resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def require_lab() -> None:
    """Make sure that hosts can be booted here.

    Raises:
        HostError: This is not root, or root without the right to mount and to make networks (a container).
        ProgramMissing: A program of Debian's is not here.
    """
    if os.geteuid() != 0:
        raise HostError("the lab needs root", found=f"uid {os.geteuid()}", hint="run it as root: sudo -E ...")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        packages = " ".join(sorted({PROGRAMS[name] for name in missing}))
        raise ProgramMissing(
            "programs that boot the lab's hosts are missing",
            found=f"no {', '.join(missing)}",
            hint=f"apt-get install --no-install-recommends {packages}",
        )
    tried = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, timeout=30, check=False)
    if tried.returncode != 0:
        raise HostError(
            "the lab needs a root that may mount and make networks",
            found=tried.stderr.decode(errors="replace").strip(),
            hint="run it on a machine of its own, or in a privileged container",
        )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, against other processes, for as long as the block lasts."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_base() -> DebianBase:
    """Return the base, built if it is not there yet: minutes the first time, nothing afterwards.

    Raises:
        HostError: The lab cannot run here, or the base could not be built.
    """
    require_lab()
    lab = lab_folder()
    base = DebianBase(lab / f"base-{_recipe()}")
    with locked(lab / "base.lock"):
        if not (base.folder / "built").exists():
            _build(base)
            _remove_unused(lab, base)
    return base


def _recipe() -> str:
    parts = (SUITE, *PACKAGES, ODOO_CONF, PROVISION)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _build(base: DebianBase) -> None:
    shutil.rmtree(base.folder, ignore_errors=True)
    base.folder.mkdir()
    _bootstrap(base)
    _run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(base.key)],
        base.folder / "ssh-keygen.log",
        60,
    )
    ssh = base.root / "root/.ssh"
    ssh.mkdir(mode=0o700)
    shutil.copyfile(f"{base.key}.pub", ssh / "authorized_keys")
    (ssh / "authorized_keys").chmod(0o600)
    (base.root / "etc/machine-id").write_text("")  # each host makes its own
    (base.root / "etc/resolv.conf").write_text("")
    (base.root / "etc/odoo/odoo.conf").write_text(ODOO_CONF)
    # The network of its own leaves the ports of this machine's PostgreSQL and Odoo alone.
    nspawn = ["systemd-nspawn", "--quiet", "--directory", str(base.root), "--register=no", "--keep-unit"]
    inside = [*nspawn, "--private-network", "--pipe", "/bin/sh", "-c", PROVISION]
    _run(inside, base.folder / "provision.log", PROVISION_SECONDS)
    (base.folder / "built").touch()


def _bootstrap(base: DebianBase) -> None:
    options = ["--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io", f"--include={','.join(PACKAGES)}"]
    mirror = _mirror()
    if mirror.startswith("file:"):
        options.append("--hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount")
    words = [SUITE, str(base.root), *([mirror] if mirror else [])]
    # Namespaces of its own: if it is killed, so is all that it started, and what it mounted into the disk is gone.
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    _run([*apart, "mmdebstrap", *options, *words], base.folder / "mmdebstrap.log", BOOTSTRAP_SECONDS)


def _mirror() -> str:
    """Return where this machine gets Debian from; empty (mmdebstrap's own choice) where it is not a Debian."""
    named = os.environ.get("OPSPROOF_LAB_MIRROR", "")
    if named or shutil.which("apt-get") is None:
        return named
    columns = ["--format", "$(ORIGIN) $(LABEL) $(SITE)", "Created-By: Packages"]
    listed = subprocess.run(["apt-get", "indextargets", *columns], capture_output=True, timeout=60, check=False)
    lines = [line.split() for line in listed.stdout.decode().splitlines()]
    return next((words[2] for words in lines if words[:2] == ["Debian", "Debian"] and len(words) == 3), "")


def _run(argv: list[str], log: Path, seconds: float) -> None:
    # A pytest that is killed takes it along: whoever builds next begins with removing the disk.
    bound = ["setpriv", "--pdeathsig", "KILL", *argv]
    with log.open("wb") as output:
        done = subprocess.run(
            bound, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=seconds, cwd="/", check=False
        )
    if done.returncode != 0:
        raise CommandFailed(
            f"{log.stem} ended with {done.returncode} while the lab's base was built",
            found=log.read_text(errors="replace")[-TAIL:],
            kept=f"what was built so far, with its logs: {log.parent}",
            hint="OPSPROOF_LAB_MIRROR=URL names another Debian mirror",
        )


def _remove_unused(lab: Path, current: DebianBase) -> None:
    used = {path.read_text() for path in lab.glob("hosts/*/base")}
    for folder in lab.glob("base-*"):
        if folder != current.folder and folder.name not in used:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    print(find_base().root)
