"""The text of `ray memory`, from what processes would tell."""

from __future__ import annotations

import pytest

from ray._runtime.memory_report import Reference, Report, render

STORE = {
    "capacity": 100 << 20,
    "used": 25 << 20,
    "num_objects": 3,
    "spilled_bytes": 7 << 20,
    "spilled_objects": 2,
    "overflow_bytes": 0,
}


def reference(
    name: str, *, pid: int = 1, size: int = 10, kind: str = "LOCAL_REFERENCE", node: str = "10.0.0.1", site: str = ""
) -> Reference:
    return Reference(name, node, pid, "Driver", site, "-", 1, size, kind)


REPORT = Report(
    [
        reference("aa", pid=3, size=10),
        reference("bb", pid=1, size=3 << 20, kind="USED_BY_PENDING_TASK", site="train.py:3 in f"),
        reference("bb", pid=2, size=-1, node="10.0.0.2"),
        reference("cc", pid=2, size=2048, kind="ACTOR_HANDLE"),
    ],
    [STORE, STORE],
    ["node cd (10.0.0.3) did not answer: it is dead"],
)


def order(text: str) -> list[str]:
    return [line.split()[-1] for line in text.splitlines() if line.startswith("10.0.0.")]


def test_refs_are_grouped_by_node_and_sorted_by_size() -> None:
    text = render(REPORT)
    assert order(text) == ["bb", "cc", "aa", "bb"]
    first, second = text.split("--- Summary for node address: ")[1:]
    assert first.startswith("10.0.0.1") and second.startswith("10.0.0.2")
    assert f"{(3 << 20) + 2048 + 10} B" in first
    header, counts = first.splitlines()[1:3]
    assert header.split() == (
        [
            "Mem",
            "Used",
            "by",
            "Objects",
            "Local",
            "References",
            "Pinned",
            "Used",
            "by",
            "task",
            "Captured",
            "in",
            "Objects",
            "Actor",
            "Handles",
        ]
    )
    assert counts.split()[2:] == ["1", "0", "1", "0", "1"]
    assert "RAY_record_ref_creation_sites=1" in text
    assert "Note: node cd (10.0.0.3) did not answer: it is dead." in text


@pytest.mark.parametrize(
    ("sort_by", "expected"),
    [("PID", ["bb", "cc", "aa"]), ("OBJECT_SIZE", ["bb", "cc", "aa"]), ("REFERENCE_TYPE", ["cc", "aa", "bb"])],
)
def test_the_order_can_be_chosen(sort_by: str, expected: list[str]) -> None:
    assert order(render(REPORT, sort_by=sort_by))[:3] == expected


def test_refs_can_be_grouped_by_where_they_were_made() -> None:
    text = render(REPORT, group_by="STACK_TRACE")
    assert "--- Summary for stack trace: disabled ---" in text
    assert "--- Summary for stack trace: train.py:3 in f ---" in text


def test_sizes_have_units() -> None:
    assert " 3.00 MB " in render(REPORT, units="MB")
    assert " 2.00 KB " in render(REPORT, units="KB")
    assert " ? " in render(REPORT)


def test_entries_can_be_limited() -> None:
    text = render(REPORT, num_entries=1)
    assert order(text) == ["bb", "bb"]
    assert "... and 2 more" in text


def test_the_stores_can_be_shown_alone() -> None:
    text = render(REPORT, stats_only=True)
    assert order(text) == []
    assert "Plasma memory usage 50 MiB, 6 objects, 25.00% full" in text
    assert "Spilled 14 MiB, 4 objects" in text


def test_fields_can_be_given_to_other_programs() -> None:
    assert "10.0.0.1 | 3 | Driver | disabled | - | 1 | 10 B | LOCAL_REFERENCE | aa" in render(REPORT, aligned=False)


@pytest.mark.parametrize("given", [{"group_by": "x"}, {"sort_by": "x"}, {"units": "x"}])
def test_what_is_unknown_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(given))} must be one of .*'x'"):
        render(REPORT, **given)  # type: ignore[arg-type]
