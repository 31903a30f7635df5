"""The configuration file: what it may hold, how it is read, where things lie."""
