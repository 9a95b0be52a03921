"""Runtime environments: what the workers of a job, task or actor should be like. Plain dicts do as well."""

from ray.runtime_env.runtime_env import RuntimeEnv as RuntimeEnv
from ray.runtime_env.runtime_env import RuntimeEnvConfig as RuntimeEnvConfig

__all__ = ["RuntimeEnv", "RuntimeEnvConfig"]
