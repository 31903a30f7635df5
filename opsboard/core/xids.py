"""What NVIDIA's Xid errors ask for (Ampere and newer), of those that concern who serves.

Source: docs.nvidia.com/deploy/xid-errors, "Analyzing Xid Errors with the Xid Catalog".
"""

from __future__ import annotations

NEEDS_RESET = {
    46: "the GPU stopped processing",
    48: "double-bit ECC error",
    79: "the GPU has fallen off the bus",
    95: "uncontained ECC error",
    119: "the GPU's own processor (GSP) does not answer",
    120: "the GPU's own processor (GSP) failed",
}
"""A reset of the GPU or of the host: no restart of an engine cures it."""

NEEDS_RESTART = {
    8: "the GPU stopped processing a channel",
    13: "an exception in a kernel",
    31: "a memory page fault",
    43: "the GPU stopped processing for one process",
    94: "contained ECC error",
}
"""The process that was hit must begin anew; the card serves on. Most are errors of software."""

WEARS = {
    63: "a row of its memory is to be remapped",
    64: "a row of its memory could not be remapped",
    74: "NVLink error",
    92: "many single-bit ECC errors",
}
"""The card serves on, and somebody should look at it."""
