"""What the numbers of an engine are called, whatever its page calls them. docs/engines has a table a kind."""

from __future__ import annotations

GAUGES = (
    "waiting_deferred",
    "kv_fetching",
    "kv_offload_usage",
    "kv_offload_read_usage",
    "kv_offload_write_usage",
    "kv_offload_pending_blocks",
)
"""Canonical gauges beside the fields: requests that wait for something other than room, requests that wait for KV from
elsewhere; shares (0..1, of several ranks the highest) of the offload cache, in use and pinned by transfers; blocks that
wait to be stored there."""

COUNTERS = (
    "prompt_tokens",
    "prompt_tokens_cached",
    "prompt_tokens_computed",
    "prompt_tokens_hit",
    "prompt_tokens_transferred",
    "generation_tokens",
    "requests_begun",
    "requests_completed",
    "completed_prompt_tokens",
    "completed_generation_tokens",
    "completed_prefill_tokens",
    "requests_finished",
    "requests_failed",
    "http_5xx",
    "preemptions",
    "prefix_queries",
    "prefix_hits",
    "external_queries",
    "external_hits",
    "iterations",
    "spec_drafts",
    "spec_draft_tokens",
    "spec_accepted_tokens",
    "kv_leases_expired",
    "kv_transfers_failed",
    "corrupted_requests",
)
"""Canonical cumulative counters. ``iterations`` is the progress heartbeat (engine steps that produced output).

``requests_begun`` have given a first token. ``requests_completed`` ended and were measured, and the ``completed_*``
tokens are theirs: a request whose client went away is never among them. ``prompt_tokens`` is the sum of those
``computed``, ``hit`` (in this engine's prefix cache) and ``transferred``; ``cached`` the sum of the last two.
``kv_leases_expired`` are requests whose blocks nobody fetched in time; ``corrupted_requests`` had NaN in their logits.
"""

HISTOGRAMS = ("ttft", "itl", "tpot", "e2e", "queue", "prefill", "decode", "inference")
"""Canonical latency histograms, all in seconds."""
