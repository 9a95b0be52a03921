"""Versions. `__version__` begins with the Ray release whose public API this is, since libraries parse it."""

VERSION = "0.1.0"
API_VERSION = "2.60.0"
__version__ = f"{API_VERSION}+raycore.{VERSION}"
__commit__ = ""
version, commit = __version__, __commit__
