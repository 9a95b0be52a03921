"""Gone: Ray Workflow was removed from Ray."""

raise RuntimeError("ray.workflow was removed from Ray. The last release that supports it is 2.47.")
