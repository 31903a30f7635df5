"""The vocabulary every room shares. No I/O here: stdlib and msgspec only."""
