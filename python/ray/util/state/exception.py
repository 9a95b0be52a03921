"""Errors of the state API."""

from __future__ import annotations

from ray._runtime.explain import UnknownIdError as UnknownIdError


class RayStateApiException(Exception):
    """Something went wrong in the state API."""


class UnknownColumnError(RayStateApiException, ValueError):
    """A filter names a column that the rows do not have."""


class ServerUnavailable(RayStateApiException):
    """The cluster does not answer."""


class DataSourceUnavailable(RayStateApiException):
    """A part of the cluster that was asked does not answer."""
