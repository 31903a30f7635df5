"""The headless daemon: collects, records, tells. ``wiring.py`` is the only place that builds objects."""
