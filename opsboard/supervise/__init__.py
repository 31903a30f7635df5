"""Lives of engines: start, stop, restart, adopt. Nothing here decides why; an operator does."""
