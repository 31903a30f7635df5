"""Log lines as vLLM writes them: its own to standard output, uvicorn's and progress bars to standard error."""

from __future__ import annotations

import os
import time

from opsboard.core.clock import Clock
from opsboard.sim.metrics import EngineMetrics
from opsboard.sim.profiles import Profile

OUT, ERR = 1, 2
STATS_INTERVAL_S = 10.0


class Log:
    """The log of one process of the engine."""

    def __init__(self, profile: Profile, role: str, clock: Clock) -> None:
        """``role`` is ``APIServer`` or ``EngineCore``; the prefix names the pid of the process that calls this."""
        version = profile.version
        if role == "EngineCore" and (0, 10, 0) <= version < (0, 18, 0):
            role = "EngineCore_DP0"
        self._prefix = f"({role} pid={os.getpid()}) " if profile.process_prefix else ""
        self._bracket = "[" if version >= (0, 7, 0) else ""
        self._clock = clock

    def write(self, text: str, source: str, level: str = "INFO") -> None:
        """Write one line of vLLM's logger; ``source`` is ``file.py:line``. Every line of ``text`` gets the prefix."""
        when = time.strftime("%m-%d %H:%M:%S", time.localtime(self._clock.now().wall))
        head = f"{self._prefix}{level} {when} {self._bracket}{source}] "
        self.raw("".join(f"{head}{line}\n" for line in text.split("\n")))

    def raw(self, text: str, stream: int = OUT) -> None:
        """Write as it is. A reader that went away is no reason to stop."""
        data = memoryview(text.encode())
        try:
            while data:
                data = data[os.write(stream, data) :]
        except OSError:
            pass

    def uvicorn(self, text: str, stream: int = ERR) -> None:
        """Write a line as uvicorn does."""
        self.raw(f"INFO:     {text}\n", stream)


class StatsLine:
    """The line of every ten seconds; nothing is written while the engine is idle."""

    def __init__(self, profile: Profile, metrics: EngineMetrics) -> None:
        """Begin with what ``metrics`` says now."""
        self._profile = profile
        self._metrics = metrics
        self._prompt = self._generated = self._preempted = 0.0
        self._was_busy = False

    def next(self, seconds: float) -> str | None:
        """Return the line for the last ``seconds``, None for an idle engine."""
        values = self._metrics.values
        prompt = (values["prompt_computed"] - self._prompt) / seconds
        generated = (values["generation_tokens"] - self._generated) / seconds
        preempted = values["preemptions"] - self._preempted
        self._prompt, self._generated = values["prompt_computed"], values["generation_tokens"]
        self._preempted = values["preemptions"]
        values["prompt_throughput"], values["generation_throughput"] = prompt, generated
        busy = bool(prompt or generated)
        idle = not busy and not self._was_busy
        self._was_busy = busy
        if idle and self._profile.version >= (0, 7, 0):
            return None
        return self._line(prompt, generated, preempted)

    def _line(self, prompt: float, generated: float, preempted: float) -> str:
        values = self._metrics.values
        rates = (
            f"Avg prompt throughput: {prompt:.1f} tokens/s, Avg generation throughput: {generated:.1f} tokens/s, "
            f"Running: {values['running']:.0f} reqs, "
        )
        usage = f"GPU KV cache usage: {100 * values['kv_usage']:.1f}%, "
        if self._profile.version < (0, 7, 0):
            return f"{rates}Swapped: 0 reqs, Pending: {values['waiting']:.0f} reqs, {usage}CPU KV cache usage: 0.0%."
        hit_rate = 100 * values["prefix_hits"] / values["prefix_queries"] if values["prefix_queries"] else 0.0
        storm = f"Preemptions: {preempted:.0f}, " if preempted and self._profile.version >= (0, 14, 0) else ""
        return (
            f"Engine 000: {rates}Waiting: {values['waiting']:.0f} reqs, {storm}{usage}"
            f"Prefix cache hit rate: {hit_rate:.1f}%"
        )
