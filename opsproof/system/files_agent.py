"""What streams a folder's files from a host; run there by its own python3, so it imports nothing of opsproof.

For each file, sorted by name: a line of JSON (`path`, `size`, `link`); then its content in pieces, each after its
length in four bytes, the first one of no length being its end. A line that holds `error` ends it all; one that holds
`end` says that this was all.
"""

import json
import os
import struct
import sys

PIECE = 1 << 18


def files_in(folder, prefix):  # type: ignore[no-untyped-def] # it runs on the host's Python, whatever that is
    """Yield path, place and link of every file below a folder."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = prefix + entry.name
        if entry.is_symlink():
            yield path, entry.path, os.readlink(entry.path)  # noqa: PTH115
        elif entry.is_dir():
            yield from files_in(entry.path, path + "/")  # type: ignore[no-untyped-call]
        elif entry.is_file():
            yield path, entry.path, None


def send(out, folder):  # type: ignore[no-untyped-def]
    """Write every file of a folder."""
    for path, place, link in files_in(folder, ""):  # type: ignore[no-untyped-call]
        if link is not None:
            out.write(json.dumps({"path": path, "size": 0, "link": link}).encode() + b"\n" + struct.pack(">I", 0))
            continue
        with open(place, "rb", buffering=0) as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            out.write(json.dumps({"path": path, "size": size, "link": None}).encode() + b"\n")
            while True:
                piece = file.read(PIECE)
                out.write(struct.pack(">I", len(piece)))
                if not piece:
                    break
                out.write(piece)
    out.write(b'{"end": true}\n')


def main():  # type: ignore[no-untyped-def]
    """Stream the folder that the command line names."""
    out = os.fdopen(1, "wb", PIECE)
    try:
        send(out, sys.argv[1])  # type: ignore[no-untyped-call]
    except OSError as error:
        out.write(json.dumps({"error": str(error)}).encode() + b"\n")
    out.flush()


if __name__ == "__main__":
    main()  # type: ignore[no-untyped-call]
