"""A bounded HTTP/1.1 client on h11: pages of engines, what is asked of them, what is told to services."""
