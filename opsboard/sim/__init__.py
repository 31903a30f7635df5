"""A simulated vLLM: real processes, a true metrics page, block-exact KV accounting, and faults on demand."""
