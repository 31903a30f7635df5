"""The board in a terminal: pure functions make lines (present.py and its neighbours), widgets paint what changed."""
