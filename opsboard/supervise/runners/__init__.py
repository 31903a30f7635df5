"""The ways to run an engine: what begins a life, finds it again, looks after it and ends it."""
