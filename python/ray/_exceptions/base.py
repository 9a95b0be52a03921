"""What all errors derive from."""

from __future__ import annotations


class RayError(Exception):
    """Base of all errors that Ray raises."""


class MessageError(RayError):
    """An error with one text, which subclasses may default."""

    _default = ""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message)
        self.message = message or self._default

    def __str__(self) -> str:
        return self.message


class ErrorMessageError(RayError):
    """An error with one text, which Ray calls `error_message`."""

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message
