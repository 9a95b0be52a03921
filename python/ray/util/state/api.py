"""Another name of `ray.util.state`, which programs import from."""

from ray.util.state import get_actor as get_actor
from ray.util.state import get_job as get_job
from ray.util.state import get_log as get_log
from ray.util.state import get_node as get_node
from ray.util.state import get_objects as get_objects
from ray.util.state import get_placement_group as get_placement_group
from ray.util.state import get_task as get_task
from ray.util.state import get_worker as get_worker
from ray.util.state import list_actors as list_actors
from ray.util.state import list_jobs as list_jobs
from ray.util.state import list_logs as list_logs
from ray.util.state import list_nodes as list_nodes
from ray.util.state import list_objects as list_objects
from ray.util.state import list_placement_groups as list_placement_groups
from ray.util.state import list_tasks as list_tasks
from ray.util.state import list_workers as list_workers
from ray.util.state import summarize_actors as summarize_actors
from ray.util.state import summarize_objects as summarize_objects
from ray.util.state import summarize_tasks as summarize_tasks
