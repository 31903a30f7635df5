"""The client of the control socket: standard library, msgspec, vocabulary. ``sync`` for verbs, ``stream`` for the board."""
