"""Old name of `ray.util.queue`."""

from ray.util.queue import Empty as Empty
from ray.util.queue import Full as Full
from ray.util.queue import Queue as Queue
