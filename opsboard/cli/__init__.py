"""The commands. One file a verb group; each imports what it needs when it runs."""
