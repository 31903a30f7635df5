"""opsboard: live operations for LLM inference servers.

This package imports nothing: it is both the ground floor and the roof.
"""
