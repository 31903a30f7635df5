"""Taking over an engine that somebody started by hand: who it is, what a copy of it needs, what no copy can have."""
