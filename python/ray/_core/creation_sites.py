"""Where refs were made, if record_ref_creation_sites is set: for `ObjectRef.call_site` and errors of lost objects."""

from __future__ import annotations

import os
import sys

_KEPT = 100_000  # of the newest refs
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_sites: dict[bytes, str] = {}  # by id; in the order in which they were made


def note(object_id: bytes) -> str:
    """Keeps the place in the user's code that this call comes from as that of the ref, and returns it."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    if len(_sites) >= _KEPT:
        _sites.pop(next(iter(_sites)), None)
    site = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    _sites[object_id] = site
    return site


def of(object_id: bytes) -> str:
    """Where the ref was made; empty: elsewhere, long ago, or not recorded."""
    return _sites.get(object_id, "")
