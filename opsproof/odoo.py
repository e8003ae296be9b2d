"""What is known of Odoo without asking a server: odoo.conf, and how the filestore and its tables are named.

Rules about files and columns are Odoo's own (`odoo/tools/config.py`, `odoo/addons/base/models/ir_attachment.py`).
Parsing a text and reading a file are apart, because the file may be on another host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from configparser import DuplicateOptionError, DuplicateSectionError, Error, ParsingError, RawConfigParser
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType

from opsproof.errors import ConfigurationError
from opsproof.machine import THIS_MACHINE, Machine
from opsproof.target import DatabaseAddress, Secret

ATTACHMENT_TABLE = "ir_attachment"
"""The table whose rows name the filestore's files."""

ATTACHMENT_COLUMN = "store_fname"
"""The column of `ATTACHMENT_TABLE` that holds a file's path below the filestore; null where the row has none."""

MODULE_TABLE = "ir_module_module"
"""The table of modules; `base` in state `installed` carries the version of Odoo."""

PARAMETER_TABLE = "ir_config_parameter"
"""The table of system parameters, `database.uuid` among them."""

ODOO_COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        ATTACHMENT_TABLE: ("id", ATTACHMENT_COLUMN, "checksum"),
        MODULE_TABLE: ("name", "state", "latest_version"),
        PARAMETER_TABLE: ("key", "value"),
    }
)
"""The tables and columns by which a database is recognised as Odoo's."""

CHECKLIST_FOLDER = "checklist"
"""The folder of the filestore that holds markers of Odoo's clean-up: empty files, no attachments."""

_UNSET = {"", "False", "false"}
# Three letters were the folder's name in old versions, and databases that were upgraded still have such rows.
_ATTACHMENT_NAME = re.compile(r"([0-9a-f]{2,3})/(\1[0-9a-f]{37,38})", re.ASCII)
_DEFAULT_DATA_DIR = PurePosixPath("/var/lib/odoo")
_DATA_DIR_IN_HOME = PurePosixPath(".local/share/Odoo")


@dataclass(frozen=True)
class OdooConf:
    """The part of an odoo.conf that says where the data is.

    An empty `host` is the Unix socket, an empty `user` whoever runs Odoo. `db_names` is empty where Odoo serves every
    database that its role owns; `data_dir` is None where Odoo's default applies. `addons_path` is empty where Odoo has
    no modules but its own.
    """

    path: str
    host: str = ""
    port: int = 5432
    user: str = ""
    password: Secret | None = None
    db_names: tuple[str, ...] = ()
    data_dir: PurePosixPath | None = None
    addons_path: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)

    def database_name(self, dbname: str | None) -> str:
        """Return the one database that is meant.

        Args:
            dbname: The inventory's choice; None takes the only name in `db_name`.

        Raises:
            ConfigurationError: The choice contradicts `db_name`, or nobody makes one.
        """
        names = ", ".join(self.db_names)
        if dbname is not None:
            if self.db_names and dbname not in self.db_names:
                raise ConfigurationError(
                    f"dbname contradicts db_name in {self.path}",
                    expected=f"one of db_name: {names}",
                    found=f"dbname: {dbname}",
                    hint="correct dbname in the inventory, or give the odoo_conf of the Odoo that serves it",
                )
            return dbname
        if len(self.db_names) == 1:
            return self.db_names[0]
        raise ConfigurationError(
            f"Nothing says which database of {self.path} is meant",
            expected="one name in db_name, or dbname in the inventory",
            found=f"db_name = {names}" if names else "no db_name: this Odoo serves every database of its role",
            hint=f"add `dbname: {self.db_names[0] if names else 'NAME'}` to the host in the inventory",
        )

    def address(self, dbname: str | None) -> DatabaseAddress:
        """Return where the database is and as whom Odoo logs in; `dbname` as in `database_name`."""
        return DatabaseAddress(
            name=self.database_name(dbname),
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            parameters=self.parameters,
        )


def read_odoo_conf(path: str, machine: Machine = THIS_MACHINE) -> OdooConf:
    """Read an odoo.conf of a machine.

    Raises:
        ConfigurationError: It is not there, cannot be read, or is not an odoo.conf.
    """
    expected = "an odoo.conf with a section [options]"
    try:
        text = machine.read(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(
            f"odoo.conf not found: {path}",
            expected=expected,
            found="no such file",
            hint="correct odoo_conf in the inventory; `systemctl cat odoo` shows the path that Odoo is started with",
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"odoo.conf is not UTF-8 text: {path}",
            expected=expected,
            found=f"a byte that is not UTF-8 at position {error.start}",
            hint=f"convert it: iconv -f latin1 -t utf-8 {path}",
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL, or with what no file name can be
        raise ConfigurationError(
            f"odoo.conf cannot be read: {path.encode(errors='backslashreplace').decode()}",
            expected=expected,
            found=getattr(error, "strerror", None) or str(error),
            hint=f"let this user read it: setfacl -m u:$(id -un):r {path}",
        ) from error
    return parse_odoo_conf(text, path)


def parse_odoo_conf(text: str, path: str) -> OdooConf:
    """Parse the text of an odoo.conf; `path` is only named, in errors.

    Raises:
        ConfigurationError: It is no INI file, has no section [options], or a value cannot be used.
    """
    # Odoo reads it without interpolation as well, so that a % in a password is a %.
    parser = RawConfigParser()
    try:
        parser.read_string(text)
    except Error as error:
        # Its message quotes the line, which may be the password's: only the number is passed on.
        raise ConfigurationError(
            f"odoo.conf is not an INI file: {path}",
            expected="a section [options] and lines of `name = value`",
            found=f"line {_line_of(error)}: {_problem_of(error)}",
            hint=f"look at it: sed -n {_line_of(error)}p {path}",
        ) from None
    if not parser.has_section("options"):
        sections = ", ".join(f"[{name}]" for name in parser.sections())
        raise ConfigurationError(
            f"odoo.conf has no section [options]: {path}",
            expected="a section [options]",
            found=sections or "no section at all",
            hint="put a line [options] above the settings, or correct odoo_conf in the inventory",
        )
    options = {key: value.strip() for key, value in parser.items("options") if value and value.strip() not in _UNSET}
    parameters = {"sslmode": options["db_sslmode"]} if "db_sslmode" in options else {}
    data_dir = options.get("data_dir")
    password = options.get("db_password")
    return OdooConf(
        path=path,
        host=options.get("db_host", ""),
        port=_port(options.get("db_port", "5432"), path),
        user=options.get("db_user", ""),
        password=Secret(password) if password is not None else None,
        db_names=_listed(options.get("db_name", "")),
        data_dir=PurePosixPath(data_dir) if data_dir else None,
        addons_path=_listed(options.get("addons_path", "")),
        parameters=parameters,
    )


def default_data_dir(users: Sequence[str], machine: Machine = THIS_MACHINE) -> PurePosixPath:
    """Return where Odoo keeps its data when odoo.conf is silent.

    Odoo takes `~/.local/share/Odoo` of the user that runs it, and `/var/lib/odoo` if that user has no home.

    Args:
        users: Who may be running Odoo, the likeliest first; unknown ones are passed over.
        machine: Where it runs.
    """
    homes = [home for user in users if (home := machine.home(user)) is not None]
    folders = [PurePosixPath(home) / _DATA_DIR_IN_HOME for home in homes if machine.is_folder(home)]
    for folder in folders:
        if machine.is_folder(str(folder)):
            return folder
    if folders and not machine.is_folder(str(_DEFAULT_DATA_DIR / "filestore")):
        return folders[0]
    return _DEFAULT_DATA_DIR


def filestore_path(data_dir: PurePosixPath, dbname: str) -> PurePosixPath:
    """Return the folder of one database's files.

    Raises:
        ConfigurationError: The name cannot be a folder, so Odoo has no filestore for it.
    """
    if "/" in dbname or "\0" in dbname or dbname in {"", ".", ".."}:
        raise ConfigurationError(
            "The database's name cannot name a filestore",
            expected="a name that is one folder below data_dir/filestore",
            found=repr(dbname),
            hint="give the folder in the inventory: `filestore: /path`, or `filestore: none`",
        )
    return data_dir / "filestore" / dbname


def is_attachment_name(name: str) -> bool:
    """Say whether a path below the filestore is one that Odoo gives to an attachment's file.

    That is `<first two or three letters>/<SHA-1 of the content>`, in hexadecimal.
    """
    match = _ATTACHMENT_NAME.fullmatch(name)
    return match is not None and len(match[2]) == 40


def _listed(text: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in text.split(",") if one.strip())


def _port(text: str, path: str) -> int:
    # Python refuses to convert thousands of digits.
    if text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536:
        return int(text)
    raise ConfigurationError(
        f"db_port in {path} is not a port",
        expected="a number from 1 to 65535",
        found=text[:40],
        hint="correct db_port, or take the line out for 5432",
    )


def _line_of(error: Error) -> int:
    # A missing section header is a ParsingError too, but one without the list of lines.
    errors = getattr(error, "errors", None) if isinstance(error, ParsingError) else None
    if errors:
        return int(errors[0][0])
    return int(getattr(error, "lineno", 0) or 0)


def _problem_of(error: Error) -> str:
    if isinstance(error, DuplicateOptionError):
        return f"{error.option} stands there a second time"
    if isinstance(error, DuplicateSectionError):
        return f"[{error.section}] begins a second time"
    return "neither a [section] nor `name = value`"
