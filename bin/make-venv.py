"""What make-venv needs beside a shell: the name of an environment, and the change from one to another in one step.

`make-venv.py name LINK LOCKED ARGUMENT...` prints the directory, `make-venv.py switch LINK DIRECTORY` has LINK lead
there.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import sys
from contextlib import suppress

AT_FDCWD = -100
RENAME_EXCHANGE = 2
DESCRIBED_BY = ("setup.py", "pyproject.toml")


def name(link, locked, arguments):
    """The directory of an environment: another one whenever anything that decides what is in it has changed."""
    digest = hashlib.sha256()
    for part in (sys.implementation.cache_tag, platform.python_version(), platform.machine(), locked, *arguments):
        digest.update(part.encode() + b"\0")
    files = [argument for argument in arguments if os.path.isfile(argument)]
    for file in (*files, *(file for file in DESCRIBED_BY if "--editable" in arguments or locked)):
        if os.path.isfile(file):
            with open(file, "rb") as content:
                digest.update(content.read() + b"\0")
    return f"{link}-{platform.python_version()}-{digest.hexdigest()[:12]}"


def switch(link, directory):
    """Have `link` lead to `directory`; remove environments but that one and the one it led to before."""
    before = os.path.basename(os.path.realpath(link)) if os.path.islink(link) else None
    made = f"{link}.new"
    with suppress(FileNotFoundError):
        os.unlink(made)
    # From the directory of the link, so that a checkout may be moved as a whole with its link.
    os.symlink(os.path.basename(directory), made)
    if os.path.isdir(link) and not os.path.islink(link):  # as earlier versions made it: in use until this moment
        _exchange(made, link)
        shutil.rmtree(made)
    else:
        os.replace(made, link)
    folder, stem = os.path.split(link)
    for entry in sorted(os.listdir(folder or ".")):
        kept = entry in (os.path.basename(directory), before)
        if not kept and entry.startswith(f"{stem}-3.") and os.path.isdir(os.path.join(folder, entry)):
            shutil.rmtree(os.path.join(folder, entry), ignore_errors=True)


def _exchange(one, other):
    """Swap two names in one step where the system can, else in two."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
            return
    except (OSError, AttributeError):
        pass
    aside = f"{other}.old"
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)


if __name__ == "__main__":
    if sys.argv[1] == "name":
        print(name(sys.argv[2], sys.argv[3], sys.argv[4:]))
    else:
        switch(sys.argv[2], sys.argv[3])
