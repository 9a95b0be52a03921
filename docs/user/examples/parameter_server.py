"""A parameter server and workers, as actors, train a classifier of handwritten digits.

    python docs/user/examples/parameter_server.py [--workers 2] [--rounds 400]

The server holds the weights of a softmax classifier. In each round every worker computes the gradient on a batch of its
share of the data; weights and gradients travel as numpy arrays through the object store. Data: the 1,797 digits that
come with scikit-learn; the last fifth is kept for the test.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import numpy.typing as npt

import ray

Array = npt.NDArray[np.float64]
_CLASSES, _FEATURES = 10, 64


def load() -> tuple[Array, npt.NDArray[np.int64], Array, npt.NDArray[np.int64]]:
    """Training and test data: pixels scaled to 0..1, and labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = digits.data[order] / 16.0, digits.target[order]
    cut = len(y) * 4 // 5
    return x[:cut], y[:cut], x[cut:], y[cut:]


def softmax(z: Array) -> Array:
    """Probabilities of each row."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def with_bias(x: Array) -> Array:
    """`x` with a column of ones."""
    return np.hstack([x, np.ones((len(x), 1))])


@ray.remote
class ParameterServer:
    """Holds the weights and applies gradients, with momentum."""

    def __init__(self, rate: float) -> None:
        self._weights: Array = np.zeros((_FEATURES + 1, _CLASSES))
        self._velocity: Array = np.zeros_like(self._weights)
        self._rate = rate

    def apply(self, *gradients: Array) -> Array:
        """One step along the mean gradient. Returns the new weights."""
        self._velocity = 0.9 * self._velocity - self._rate * np.mean(gradients, axis=0)
        self._weights = self._weights + self._velocity
        return self._weights

    def weights(self) -> Array:
        return self._weights


@ray.remote
class Worker:
    """Computes gradients on its share of the training data."""

    def __init__(self, x: Array, y: npt.NDArray[np.int64], seed: int) -> None:
        self._x, self._y = with_bias(x), y
        self._random = np.random.default_rng(seed)

    def gradient(self, weights: Array, batch: int = 128) -> Array:
        rows = self._random.integers(0, len(self._y), batch)
        x, y = self._x[rows], self._y[rows]
        error = softmax(x @ weights)
        error[np.arange(batch), y] -= 1.0
        return x.T @ error / batch + 1e-4 * weights


def train(workers: int, rounds: int) -> float:
    """Trains and returns the accuracy on the test data."""
    x, y, test_x, test_y = load()
    server = ParameterServer.remote(0.1)
    team: list[Any] = [Worker.remote(x[i::workers], y[i::workers], i) for i in range(workers)]
    weights = server.weights.remote()
    for _ in range(rounds):  # only refs pass through the driver
        weights = server.apply.remote(*[worker.gradient.remote(weights) for worker in team])
    predicted = (with_bias(test_x) @ ray.get(weights)).argmax(axis=1)
    return float((predicted == test_y).mean())


def main(argv: list[str] | None = None) -> float:
    """Runs the training and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=400)
    args = parser.parse_args(argv)
    ray.init()
    start = time.perf_counter()
    accuracy = train(args.workers, args.rounds)
    spent = time.perf_counter() - start
    print(f"test accuracy {accuracy:.1%} after {args.rounds} rounds with {args.workers} workers in {spent:.2f} s")
    ray.shutdown()
    return accuracy


if __name__ == "__main__":
    main()
