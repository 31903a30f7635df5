"""Alerts judge readings and tell people. Here are the detectors; what people are told about has its own issue."""
