"""The client of the control socket: stdlib, msgspec, vocabulary. ``sync`` for verbs, ``stream`` for the board."""
