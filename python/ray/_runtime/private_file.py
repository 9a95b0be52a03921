"""Writing files that are for one user, into folders that others may write to as well."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Makes `path` a file with mode 0600 that holds `text`; whoever reads it finds the old text or the new one, whole.

    Nothing is written through a link that somebody else has laid there: the file is made anew, under a name that nobody
    can foresee, and then takes the place of `path`.
    """
    fd, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "w") as out:
            out.write(text)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
