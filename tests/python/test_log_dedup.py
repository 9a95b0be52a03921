"""Folding of lines that many processes print alike."""

from ray._runtime.log_dedup import Line, LogDeduplicator


def texts(lines):
    return [line.text for line in lines]


def test_the_first_is_shown_and_those_of_others_are_counted():
    dedup = LogDeduplicator(window_s=5)
    assert texts(dedup.add(Line("loss at step 1", 1, None), 0)) == ["loss at step 1"]
    assert texts(dedup.add(Line("loss at step 2", 2, None), 1)) == []
    assert texts(dedup.add(Line("loss at step 3", 3, None), 2)) == []
    assert dedup.next_deadline() == 5
    assert texts(dedup.expire(4.9)) == []
    (summary,) = texts(dedup.expire(5))
    assert summary.startswith("loss at step 3 [repeated 2x across cluster]")
    assert "RAY_DEDUP_LOGS=0" in summary
    # It goes on: the next ones are counted at once, and the hint is given once only.
    assert texts(dedup.add(Line("loss at step 9", 1, None), 6)) == []
    assert texts(dedup.add(Line("loss at step 9", 2, None), 6)) == []
    assert texts(dedup.flush()) == ["loss at step 9 [repeated 2x across cluster]"]


def test_what_one_process_repeats_is_shown():
    dedup = LogDeduplicator()
    for now in range(3):
        assert texts(dedup.add(Line("same", 1, None), now)) == ["same"]


def test_a_pattern_that_never_stops_does_not_grow():
    dedup = LogDeduplicator(window_s=5)
    for source in range(100):
        assert len(list(dedup.add(Line(f"step {source}", source, None), source))) <= 1
    (pattern,) = dedup._patterns.values()
    assert len(pattern.sources) == 2


def test_a_single_repetition_is_shown_as_it_is_and_late():
    dedup = LogDeduplicator(window_s=5)
    list(dedup.add(Line("a", 1, "first"), 0))
    assert not list(dedup.add(Line("a", 2, "second"), 1))
    assert list(dedup.expire(6)) == [Line("a", 2, "second")]
    assert dedup.next_deadline() is None


def test_different_lines_and_empty_ones_are_left_alone():
    dedup = LogDeduplicator()
    shown = [texts(dedup.add(Line(text, source, None), 0)) for source, text in enumerate(["a", "b", "", "", "1", "2"])]
    assert shown == [["a"], ["b"], [""], [""], ["1"], ["2"]]
    assert not list(dedup.flush())
