"""The reader process: the only one that calls the GPU driver. One line in asks for one reading, one JSON line goes out.

It ends when its parent closes the line, or after saying that there is nothing to read; the next process begins
afresh, which is the one cure for a driver that was reloaded. Run as ``python -m collectors.nvml_process [PROC_ROOT]``.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence

import msgspec

from collectors import procfs
from opsboard.core.clock import SystemClock
from opsboard.core.model import GpuReading, Outcome
from opsboard.core.text import sanitise

LIBRARY = "libnvidia-ml.so.1"


def main(arguments: Sequence[str]) -> int:
    """Answer requests on standard input until it ends or there is nothing more to say; return 0."""
    read = open_driver(arguments[0] if arguments else procfs.PROC)
    for _ in sys.stdin.buffer:
        reading = read()
        sys.stdout.buffer.write(msgspec.json.encode(reading) + b"\n")
        sys.stdout.buffer.flush()
        if reading.outcome is not Outcome.OK:
            break
    return 0


def open_driver(proc_root: str) -> Callable[[], GpuReading]:
    """Return a function that reads all GPUs, or one that says in one line why there are none. Neither raises."""
    try:
        ctypes.CDLL(LIBRARY)  # before the binding: most machines that are asked have none, and its import costs most
    except OSError as error:
        if "No such file" in str(error):
            return _always(Outcome.NO_DATA, f"no NVIDIA driver on this machine ({LIBRARY} not found)")
        return _always(Outcome.FAILED, f"{LIBRARY} does not load: {error}")
    import pynvml  # noqa: PLC0415  only where there is a driver

    from collectors.nvml_driver import Driver  # noqa: PLC0415  the same

    def read() -> GpuReading:
        try:
            return driver.read()
        except pynvml.NVMLError as error:
            return _said(Outcome.FAILED, f"the NVIDIA driver failed: {error}")

    try:
        driver = Driver(pynvml, SystemClock(), proc_root)
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
            return _always(Outcome.NO_DATA, f"the NVIDIA driver is not loaded ({LIBRARY} is here)")
        if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            remedy = "library and kernel module are of different versions: reboot, or reload the driver"
            return _always(Outcome.FAILED, f"the NVIDIA driver does not start: {remedy}")
        return _always(Outcome.FAILED, f"the NVIDIA driver does not start: {error}")
    return read


def _said(outcome: Outcome, error: str) -> GpuReading:
    return GpuReading(outcome=outcome, error=sanitise(error, 300))


def _always(outcome: Outcome, error: str) -> Callable[[], GpuReading]:
    return lambda: _said(outcome, error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
