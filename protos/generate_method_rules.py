#!/usr/bin/env python3
"""Makes the table of retry rules of the options that the protos state: method_rules.inc.

Usage: generate_method_rules.py DESCRIPTOR_SET OUTPUT. The set is what protoc writes with --descriptor_set_out
--include_imports. It is read here as plain wire format (numbers below are those of
google/protobuf/descriptor.proto), so that building needs no further package. Lines of the output are
X(service, method, repeat, one_way, waits, unordered, key, why).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

RULE = 50101  # the extension in method_rule.proto
REPEATS = {1: "kReadOnly", 2: "kIdempotent", 3: "kKeyed", 4: "kLossy", 5: "kOnce"}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message: an integer, or the bytes of what has a length."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}[kind]
        yield number, data[at : at + length]
        at += length


def all_of(data: bytes, number: int) -> list[bytes]:
    return [value for n, value in fields(data) if n == number and isinstance(value, bytes)]


def text_of(data: bytes, number: int) -> str:
    found = all_of(data, number)
    return found[-1].decode() if found else ""


def rule_of(name: str, rule: bytes, request_fields: set[str]) -> str:
    """The rest of a row. Raises ValueError where the rule does not hold together."""
    values = dict(fields(rule))
    repeat = REPEATS.get(int(values.get(1, 0)))
    key, why = text_of(rule, 2), text_of(rule, 6)
    one_way, waits, unordered = (bool(values.get(n, 0)) for n in (3, 4, 5))
    if repeat is None:
        raise ValueError(f"{name}: its rule does not say whether it may be repeated")
    if unknown := [field for field in key.split() if field not in request_fields]:
        raise ValueError(f"{name}: its request has no field {unknown[0]}")
    if repeat == "kKeyed" and not key:
        raise ValueError(f"{name}: KEYED without a key")
    if repeat in ("kLossy", "kOnce") and not why:
        raise ValueError(f"{name}: its rule needs a reason")
    if repeat == "kLossy" and not one_way:
        raise ValueError(f"{name}: only what is one-way may get lost")
    if one_way and waits:
        raise ValueError(f"{name}: nothing answers what is one-way")
    flags = ", ".join(str(flag).lower() for flag in (one_way, waits, unordered))
    return f'{repeat}, {flags}, "{key}", "{why}"'


def rows(descriptor_set: bytes) -> Iterator[str]:
    files = all_of(descriptor_set, 1)
    messages: dict[str, set[str]] = {}
    for file in files:
        for message in all_of(file, 4):
            messages[f".{text_of(file, 2)}.{text_of(message, 1)}"] = {text_of(f, 1) for f in all_of(message, 2)}
    for file in files:
        for service in all_of(file, 6):
            for method in all_of(service, 2):
                name = f"{text_of(service, 1)}.{text_of(method, 1)}"
                rules = [rule for options in all_of(method, 4) for rule in all_of(options, RULE)]
                if not rules:
                    raise ValueError(f"{name}: no rule; state one with option (rule), see method_rule.proto")
                request = messages[text_of(method, 2)]
                yield f'X("{text_of(service, 1)}", "{text_of(method, 1)}", {rule_of(name, b"".join(rules), request)})\n'


def main() -> int:
    source, target = (Path(argument) for argument in sys.argv[1:])
    try:
        text = "".join(rows(source.read_bytes()))
    except ValueError as error:
        print(f"protos: {error}", file=sys.stderr)
        return 1
    target.write_text("// Made by protos/generate_method_rules.py of the options in protos/ray/v1/*.proto.\n" + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
