"""Alerts judge readings and tell people. The room is empty until its own issue fills it."""
