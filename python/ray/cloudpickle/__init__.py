"""The pickler that Ray uses for functions and classes, under the name that programs know.

cloudpickle takes as long to import as the rest of ray, so it is loaded with the first look at one of its names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudpickle import CloudPickler as CloudPickler
    from cloudpickle import dump as dump
    from cloudpickle import dumps as dumps
    from cloudpickle import load as load
    from cloudpickle import loads as loads
    from cloudpickle import register_pickle_by_value as register_pickle_by_value
    from cloudpickle import unregister_pickle_by_value as unregister_pickle_by_value


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__version__":
        raise AttributeError(f"module 'ray.cloudpickle' has no attribute {name!r}")
    import cloudpickle

    value = getattr(cloudpickle, name)
    globals()[name] = value
    return value
