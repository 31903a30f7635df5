"""Collectors bring facts in: engine pages, GPU driver, host and processes, log lines."""
