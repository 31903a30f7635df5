"""One file an engine kind; each holds a module constant ``DIALECT`` and nothing runs at import."""
