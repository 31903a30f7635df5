"""A scheduler for the real vLLM that breaks it in known ways: `--scheduler-cls faulty.FaultyScheduler`.

vLLM's own scheduler with a pause after each decision, as long as a large GPU's step, and the faults that a file asks
for, which is read again whenever it is written. It writes down when it really did something. This file is imported by
vLLM's own interpreter, with this folder on PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.request import RequestStatus

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput

STEP_S, TOKEN_S = 0.012, 15e-6
"""With the tiny model's own 3 ms: about what a 7B model takes on one large GPU."""
CONTROL = Path(os.environ.get("FAULTY_CONTROL", ""))
"""A JSON file with the faults as they shall be from now on; what it does not name is no fault. See ``_NONE``."""
LOG = Path(os.environ.get("FAULTY_LOG", ""))
"""JSON lines are added to it: ``{"t": Unix s, "kind": "loss" | "hang" | "hang_end" | "preempted", ...}``."""
_NONE: dict[str, Any] = {
    "step_s": 0.0,  # every step takes so much longer
    "prefill_s": 0.0,  # and every token of a prompt
    "hang_s": 0.0,  # the next step with work does not end for so long, once
    "preempt": 0.0,  # running requests preempted a second, needed or not
    "leak_share": 0.0,  # so many of the requests that end lose blocks (0..1)
    "leak_blocks": 0,  # this many each; 0: all
    "leak_aborted": False,  # only those whose clients went away
    "lease_s": 0.0,  # and they come back after so long; 0: never
    "lose": 0,  # free blocks that are lost at once, once
    "hoard": 0,  # bytes kept for ever for each request that ends
    "heal": 0,  # give everything back that was taken, once: the next recording begins with a whole engine
}
_IDLE_S = 0.005
"""Between two empty steps while leases stand."""


class FaultyScheduler(AsyncScheduler):  # type: ignore[misc]  # vLLM's types are not in this environment
    """Every fault is done with vLLM's own means: a reference too many, a preemption too many, a pause."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._faults = dict(_NONE)
        self._written = 0
        self._random = random.Random(7)
        self._hoard: list[bytes] = []
        self._leases: list[tuple[float, list[Any]]] = []
        self._lost: dict[int, Any] = {}
        self._owed = 0.0
        self._stepped = time.monotonic()

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """Decide about a step, and let it take its time."""
        self._listen()
        now = time.monotonic()
        since, self._stepped = now - self._stepped, now
        self._give_back(now)
        if self.running or self.waiting:
            self._hang()
            self._preempt(since)
        output = super().schedule(*args, **kwargs)
        tokens = output.total_num_scheduled_tokens
        if tokens:
            prompt = tokens - len(output.num_scheduled_tokens)  # a request that decodes has one
            time.sleep(STEP_S + TOKEN_S * tokens + self._faults["step_s"] + self._faults["prefill_s"] * prompt)
        elif self._leases:
            time.sleep(_IDLE_S)
        return output

    def has_finished_requests(self) -> bool:
        """Keep stepping while blocks are held for others, as with a connector."""
        return bool(self._leases) or super().has_finished_requests()

    def _free_blocks(self, request: Any) -> None:
        """Take a request's end in: it may keep something."""
        self._leak(request)
        if self._faults["hoard"]:
            self._hoard.append(b"\1" * self._faults["hoard"])  # written to, so that it is resident
        super()._free_blocks(request)

    # --- the faults -------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            written = CONTROL.stat().st_mtime_ns
        except OSError:
            return
        if written != self._written:
            self._written = written
            self._faults = _NONE | json.loads(CONTROL.read_text())
            if self._faults["heal"]:
                self._heal()
            if self._faults["lose"]:
                self._lose(self.kv_cache_manager.block_pool.get_new_blocks(self._faults["lose"]))

    def _hang(self) -> None:
        if seconds := self._faults["hang_s"]:
            self._faults["hang_s"] = 0.0
            self._say("hang")
            time.sleep(seconds)
            self._say("hang_end")

    def _preempt(self, since: float) -> None:
        """Send running requests back to the queue, as ``reset_prefix_cache`` does with all of them."""
        self._owed = min(self._owed + self._faults["preempt"] * since, 2.0) if self._faults["preempt"] else 0.0
        while self._owed >= 1.0 and len(self.running) > 1:
            self._owed -= 1.0
            victim = self.running.pop()
            self.prev_step_scheduled_req_ids.discard(victim.request_id)
            self._preempt_request(victim, time.monotonic(), drop_stale_output=True)
            self._say("preempted")

    def _leak(self, request: Any) -> None:
        faults = self._faults
        if faults["leak_aborted"] and request.status != RequestStatus.FINISHED_ABORTED:
            return
        if self._random.random() >= faults["leak_share"]:
            return
        held = [block for group in self.kv_cache_manager.get_blocks(request.request_id).blocks for block in group]
        kept = [block for block in held if not block.is_null][-faults["leak_blocks"] :]
        if faults["lease_s"]:
            for block in kept:
                block.ref_cnt += 1
            self._leases.append((time.monotonic() + faults["lease_s"], kept))
            return
        new = [block for block in kept if block.block_id not in self._lost]
        for block in new:
            block.ref_cnt += 1
        self._lose(new)

    def _lose(self, blocks: list[Any]) -> None:
        """Note who nobody will free."""
        self._lost |= {block.block_id: block for block in blocks}
        if blocks:
            self._say("loss", blocks=len(blocks))

    def _heal(self) -> None:
        self.kv_cache_manager.block_pool.free_blocks(list(self._lost.values()))
        self._lost = {}
        self._hoard = []

    def _give_back(self, now: float) -> None:
        while self._leases and self._leases[0][0] <= now:
            self.kv_cache_manager.block_pool.free_blocks(self._leases.pop(0)[1])

    def _say(self, kind: str, **more: Any) -> None:
        with LOG.open("a") as log:
            log.write(json.dumps({"t": time.time(), "kind": kind} | more) + "\n")
