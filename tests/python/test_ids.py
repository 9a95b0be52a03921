import copy
import pickle

import pytest

from ray._raylet import (
    ActorID,
    BaseID,
    JobID,
    NodeID,
    ObjectID,
    ObjectRef,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)


@pytest.mark.parametrize(
    ("cls", "size"),
    [(ObjectRef, 28), (TaskID, 24), (ActorID, 16), (JobID, 4), (PlacementGroupID, 18), (NodeID, 28), (WorkerID, 28)],
)
def test_sizes_and_round_trips(cls, size):
    made = cls(bytes(range(size)))
    assert cls.size() == size
    assert made.binary() == bytes(range(size))
    assert made.hex() == bytes(range(size)).hex()
    assert made == cls.from_binary(made.binary()) and hash(made) == hash(cls(made.binary()))
    assert repr(made) == f"{cls.__name__}({made.hex()})"
    assert cls.nil().is_nil() and not made.is_nil()
    with pytest.raises(ValueError):
        cls(b"x" * (size + 1))


def test_from_hex():
    assert NodeID.from_hex("ab" * 28).binary() == b"\xab" * 28
    with pytest.raises(NotImplementedError):
        ObjectRef.from_hex("ab" * 28)


def test_classes_differ():
    assert NodeID(b"\1" * 28) != WorkerID(b"\1" * 28)
    assert issubclass(NodeID, UniqueID) and issubclass(UniqueID, BaseID) and ObjectID is ObjectRef


def test_pickle_and_copy():
    made = TaskID.from_random()
    assert pickle.loads(pickle.dumps(made)) == made == copy.copy(made)


def test_embedded_ids():
    job = JobID.from_int(5)
    assert job.int() == 5 and job.hex() == "05000000"
    actor = ActorID.of(job)
    assert actor.job_id == job
    task = TaskID.for_actor_creation_task(actor)
    assert task.actor_id() == actor and task.job_id() == job
    ref = ObjectRef(task.binary() + b"\1\0\0\0")
    assert ref.task_id() == task and ref.job_id() == job
    for made in (TaskID.for_normal_task(job, task, 1), TaskID.for_driver_task(job), TaskID.for_fake_task(job)):
        assert made.job_id() == job and made.actor_id().is_nil()
    call = TaskID.for_actor_task(job, task, 2, actor)
    assert call.actor_id() == actor and call == TaskID.for_actor_task(job, task, 2, actor)
    assert call != TaskID.for_actor_task(job, task, 3, actor)


def test_a_ref_is_not_iterable():
    with pytest.raises(TypeError):
        iter(ObjectRef.nil())
