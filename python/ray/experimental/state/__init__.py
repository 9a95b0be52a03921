"""The state API under its old name; see `ray.util.state`."""
