"""The command `ray`. Nothing else in the package imports it, nor click."""
