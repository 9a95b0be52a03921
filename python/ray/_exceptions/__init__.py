"""The errors of `ray.exceptions`, by what they are about. Programs import them from there."""
