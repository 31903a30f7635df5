"""Services that people are told by, one file each."""
