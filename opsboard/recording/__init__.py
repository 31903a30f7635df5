"""Readings in files: one schema for who writes and who reads them."""
