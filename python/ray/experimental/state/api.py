"""The functions of `ray.util.state` under their old name."""

from ray.util.state.api import *  # noqa: F403
