"""OpenStack Swift with its S3 side: a real server that refuses wrong signatures and wrong checksums.

Its virtual environment is made once, in the user's cache folder; the data are temporary.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.lab.moto_server import S3Server, free_ports, stop, wait_for_answer

REQUIREMENTS = ("swift==2.38.3", "setuptools<81")
INSTALL_SECONDS = 600
KINDS = ("object", "container", "account")

BACKEND = """\
[DEFAULT]
devices = {folder}/srv
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}/etc
log_name = {kind}
log_address = /nonexistent
disable_fallocate = true
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

PROXY = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}/etc
log_address = /nonexistent
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck listing_formats bulk tempurl s3api tempauth copy slo dlo \
versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:s3api]
use = egg:swift#s3api
allow_multipart_uploads = yes
min_segment_size = 5242880
location = us-east-1
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
"""

PLAIN_FILTERS = (
    "catch_errors",
    "gatekeeper",
    "healthcheck",
    "listing_formats",
    "bulk",
    "tempurl",
    "copy",
    "slo",
    "dlo",
    "symlink",
)


def installed(*requirements: str) -> Path:
    """Return the `bin` folder of a virtual environment that has these, the first of which names it.

    It is made where it is missing, and again where an earlier making was not brought to its end.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opsproof"
    cache.mkdir(parents=True, exist_ok=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    package = re.sub(r"\[.*\]", "", requirements[0]).replace("==", "-")
    home = cache / f"{package}-python{version}"
    # Several workers of one test run come here at the same time.
    with (cache / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = home / "complete"
        if not done.exists():
            shutil.rmtree(home, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(home)])
            _run([str(home / "bin/pip"), "install", "--quiet", *requirements])
            done.touch()
    return home / "bin"


def _run(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    # swift-ring-builder ends with 1 where it only warns.
    if done.returncode not in ((0, 1) if "ring-builder" in command[0] else (0,)):
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def _configure(binaries: Path, folder: Path, ports: dict[str, int]) -> None:
    etc = folder / "etc"
    etc.mkdir()
    (folder / "srv/d1").mkdir(parents=True)
    user = pwd.getpwuid(os.geteuid()).pw_name
    (etc / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_prefix = aa\nswift_hash_path_suffix = bb\n"
        "[storage-policy:0]\nname = p0\ndefault = yes\n[swift-constraints]\n"
    )
    for kind in KINDS:
        text = BACKEND.format(folder=folder, port=ports[kind], user=user, kind=kind)
        (etc / f"{kind}-server.conf").write_text(text)
        build = [str(binaries / "swift-ring-builder"), f"{kind}.builder"]
        _run([*build, "create", "4", "1", "0"], etc)
        _run([*build, "add", f"r1z1-127.0.0.1:{ports[kind]}/d1", "1"], etc)
        _run([*build, "rebalance"], etc)
    filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in PLAIN_FILTERS)
    proxy = PROXY.format(folder=folder, port=ports["proxy"], user=user) + filters
    (etc / "proxy-server.conf").write_text(proxy)


@contextmanager
def running_swift() -> Iterator[S3Server]:
    """Run Swift's four servers on free ports, with the data in a temporary folder."""
    binaries = installed(*REQUIREMENTS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swift-")))
        ports = dict(zip((*KINDS, "proxy"), free_ports(4), strict=True))
        _configure(binaries, folder, ports)
        for kind, port in ports.items():
            log = folder / f"{kind}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [str(binaries / f"swift-{kind}-server"), str(folder / f"etc/{kind}-server.conf")],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            stack.callback(stop, process)
            path = "healthcheck" if kind == "proxy" else "recon/version"
            wait_for_answer(f"http://127.0.0.1:{port}/{path}", process, log)
        yield S3Server(f"http://127.0.0.1:{ports['proxy']}", "test:tester", "testing")


@pytest.fixture(scope="session")
def swift_server() -> Iterator[S3Server]:
    """A real S3 server. What uses it is marked slow."""
    with running_swift() as server:
        yield server
