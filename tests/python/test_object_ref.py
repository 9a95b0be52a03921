"""What `ray.wait` asks of its list before anything else."""

import os

import pytest

from ray._core.ids import NodeID
from ray._core.object_ref import ObjectRef, distinct


def _refs(count: int) -> list[ObjectRef]:
    return [ObjectRef(os.urandom(ObjectRef.SIZE)) for _ in range(count)]


def test_different_refs_pass_again_and_again():
    refs = _refs(10)
    assert distinct([])
    while refs:
        assert distinct(refs)
        assert distinct(refs[::-1])
        refs = refs[1:]


def test_the_same_handle_twice_is_found_at_the_first_look_and_later():
    refs = _refs(3)
    with pytest.raises(ValueError, match="unique"):
        distinct([*refs, refs[1]])
    assert distinct(refs)
    with pytest.raises(ValueError, match="unique"):
        distinct([*refs, refs[1]])
    assert distinct(refs)


def test_two_handles_of_one_object_are_found_though_both_passed_apart():
    refs = _refs(3)
    twin = ObjectRef(refs[0].binary())
    assert distinct(refs)
    assert distinct([twin, *_refs(2)])
    with pytest.raises(ValueError, match="unique"):
        distinct([*refs, twin])
    with pytest.raises(ValueError, match="unique"):
        distinct([twin, refs[0]])
    assert distinct([twin, refs[1]])
    assert distinct([refs[0], refs[1]])


def test_anything_else_in_the_list_is_left_to_the_caller():
    refs = _refs(2)
    assert not distinct([*refs, NodeID.from_random()])
    assert not distinct([*refs, refs[0], None])
    assert distinct(refs)
