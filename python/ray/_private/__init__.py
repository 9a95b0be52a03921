"""Names that other programs reach into Ray for. They forward to where things are here; nothing of ours uses them."""
