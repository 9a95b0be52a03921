import os

from ray._runtime.streams import MARK, NamedStream, Names


def _stream():
    read, write = os.pipe()
    names = Names()
    return read, names, NamedStream(write, names)


def test_announces_each_change_of_name_once():
    read, names, stream = _stream()
    names.current = "f"
    stream.write("a\n")
    stream.write("b\n")
    names.current = "g"
    stream.write("c\n")
    assert os.read(read, 1000).decode() == f"{MARK}f\na\nb\n{MARK}g\nc\n"


def test_a_mark_begins_a_line():
    read, names, stream = _stream()
    names.current = "f"
    stream.write("no newline")
    names.current = "g"
    stream.write("x\n")
    assert os.read(read, 1000).decode() == f"{MARK}f\nno newline\n{MARK}g\nx\n"


def test_flushes_only_what_was_written():
    read, _, stream = _stream()
    stream.write("partial")
    assert stream.dirty
    stream.flush_if_dirty()
    assert not stream.dirty
    assert os.read(read, 1000) == b"partial"
