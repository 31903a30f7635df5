"""What is remembered: samples in ``series.db``, decisions and timelines in ``state.db``.

The face is :mod:`opsboard.store.store`.
"""
