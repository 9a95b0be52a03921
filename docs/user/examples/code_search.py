"""A search index over the source files of Python's standard library, built by tasks.

    python docs/user/examples/code_search.py [--queries "event loop" "shared memory"] [--limit FILES] [--partitions N]

Map tasks tokenise batches of files and split what they find into partitions, one ref each (a shuffle through nested
refs: the driver only passes lists of refs on). Reduce tasks merge a partition into an inverted index, which stays in
the object store. An actor counts finished files and shows a progress bar. Queries are answered by tasks, each over its
partition. The same work is done serially, for comparison.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import re
import sysconfig
import time
import zlib
from typing import Any

import ray
from ray.experimental import tqdm_ray

Postings = dict[str, dict[str, int]]  # token -> file -> occurrences
_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")


def source_files(limit: int | None = None) -> list[str]:
    """The Python files of the standard library, by path."""
    root = pathlib.Path(sysconfig.get_paths()["stdlib"])
    files = sorted(str(path) for path in root.rglob("*.py") if "site-packages" not in path.parts)
    return files[:limit]


def tokenise(paths: list[str]) -> Postings:
    """Counts the words of each file."""
    postings: Postings = collections.defaultdict(dict)
    for path in paths:
        text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
        for token, count in collections.Counter(word.lower() for word in _TOKEN.findall(text)).items():
            postings[token][path] = count
    return dict(postings)


def partition_of(token: str, partitions: int) -> int:
    """Which partition a token belongs to; the same in every process."""
    return zlib.crc32(token.encode()) % partitions


def merge(parts: list[Postings]) -> Postings:
    """One index of several over different files."""
    merged: Postings = {}
    for part in parts:
        for token, files in part.items():
            merged.setdefault(token, {}).update(files)
    return merged


def lookup(index: Postings, words: list[str]) -> dict[str, dict[str, int]]:
    """The postings of those words that this index knows."""
    return {word: index[word] for word in words if word in index}


def rank(found: dict[str, dict[str, int]], words: list[str], top: int = 3) -> list[tuple[str, int]]:
    """Files that have all the words, those with the most occurrences first."""
    postings = [found.get(word, {}) for word in words]
    common = set(postings[0]).intersection(*postings[1:]) if postings else set()
    scored = [(path, sum(posting[path] for posting in postings)) for path in common]
    return sorted(scored, key=lambda item: (-item[1], item[0]))[:top]


@ray.remote
class Progress:
    """Counts files that were read, and shows it."""

    def __init__(self, total: int) -> None:
        self._bar = tqdm_ray.tqdm(desc="indexing", total=total, unit="files")
        self._files = 0

    def add(self, files: int) -> None:
        self._files += files
        self._bar.update(files)

    def finish(self) -> int:
        self._bar.close()
        return self._files


@ray.remote
def map_batch(paths: list[str], partitions: int, progress: Any) -> list[Any]:
    """Tokenises some files; one ref for each partition of what it found."""
    split: list[Postings] = [{} for _ in range(partitions)]
    for token, files in tokenise(paths).items():
        split[partition_of(token, partitions)][token] = files
    ray.get(progress.add.remote(len(paths)))  # calls of several callers have no order: done before this task is
    return [ray.put(part) for part in split]


@ray.remote
def reduce_partition(parts: list[Any]) -> Postings:
    """Merges what the map tasks found for one partition; the refs come inside of a list, so they are fetched here."""
    return merge(ray.get(parts))


@ray.remote
def search_partition(index: Postings, words: list[str]) -> dict[str, dict[str, int]]:
    """Looks the words up in one partition, which arrives as its value."""
    return lookup(index, words)


def build(files: list[str], partitions: int, batch: int = 40) -> list[Any]:
    """Builds the index with tasks. Returns a ref for each partition."""
    progress = Progress.remote(len(files))
    mapped = [map_batch.remote(files[i : i + batch], partitions, progress) for i in range(0, len(files), batch)]
    columns = list(zip(*ray.get(mapped), strict=True))
    index = [reduce_partition.remote(list(column)) for column in columns]
    ray.wait(index, num_returns=len(index))
    assert ray.get(progress.finish.remote()) == len(files)
    return index


def search(index: list[Any], query: str) -> list[tuple[str, int]]:
    """The best files for a query."""
    words = [word.lower() for word in _TOKEN.findall(query)]
    needed = sorted({partition_of(word, len(index)) for word in words})
    found: dict[str, dict[str, int]] = {}
    for part in ray.get([search_partition.remote(index[p], words) for p in needed]):
        found.update(part)
    return rank(found, words)


def main(argv: list[str] | None = None) -> None:
    """Builds the index, answers the queries and prints the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", nargs="*", default=["event loop", "shared memory", "weak reference"])
    parser.add_argument("--limit", type=int, help="index only that many files")
    parser.add_argument("--partitions", type=int, default=8)
    args = parser.parse_args(argv)
    files = source_files(args.limit)

    start = time.perf_counter()
    serial = tokenise(files)
    serial_s = time.perf_counter() - start

    ray.init()
    start = time.perf_counter()
    index = build(files, args.partitions)
    parallel_s = time.perf_counter() - start
    print(f"{len(files)} files: {serial_s:.2f} s serially, {parallel_s:.2f} s with tasks")

    for query in args.queries:
        start = time.perf_counter()
        results = search(index, query)
        spent_ms = (time.perf_counter() - start) * 1e3
        words = [word.lower() for word in _TOKEN.findall(query)]
        assert results == rank(lookup(serial, words), words), "the tasks' index must answer as the serial one"
        print(f"{query!r} ({spent_ms:.0f} ms):")
        for path, score in results:
            print(f"  {score:6d}  {path}")
    ray.shutdown()


if __name__ == "__main__":
    main()
