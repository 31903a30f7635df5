"""The KV cache in blocks, counted as vLLM counts it: reference counts, a least-recently-used free list, prefix caching.

A block that nobody references is free even while its contents are still cached; it loses them only when it is handed
out again. So an idle engine reads exactly 0.0, however full its cache is: 1 - free / (blocks - 1), where one block is
vLLM's null block (``vllm/v1/core/block_pool.py``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class BlockPool:
    """All blocks of one engine. A block is its number."""

    def __init__(self, blocks: int) -> None:
        """Begin with every block free. ``blocks`` counts the null block, as ``num_gpu_blocks`` does."""
        self.size = blocks - 1
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, blocks))
        self._refs = [0] * blocks
        self._hash_of: dict[int, int] = {}
        self._block_of: dict[int, int] = {}

    @property
    def free(self) -> int:
        """Blocks that can be handed out now."""
        return len(self._free)

    @property
    def usage(self) -> float:
        """Share of blocks that somebody references, 0..1."""
        return 1.0 - len(self._free) / self.size

    def cached_prefix(self, hashes: Sequence[int]) -> list[int]:
        """Return the blocks that hold the longest cached prefix of ``hashes``."""
        found: list[int] = []
        for one in hashes:
            block = self._block_of.get(one)
            if block is None:
                break
            found.append(block)
        return found

    def unreferenced(self, blocks: Iterable[int]) -> int:
        """Count those of ``blocks`` that :meth:`hold` would take off the free list."""
        return sum(1 for block in blocks if not self._refs[block])

    def hold(self, blocks: Iterable[int]) -> None:
        """Reference ``blocks`` once more, taking them off the free list where needed."""
        for block in blocks:
            if self._refs[block] == 0:
                del self._free[block]
            self._refs[block] += 1

    def take(self, count: int) -> list[int]:
        """Hand out ``count`` free blocks, the least recently used first; they lose what they cached.

        Raises ValueError when there are not enough: ask :attr:`free` first.
        """
        if count > len(self._free):
            raise ValueError(f"{count} blocks wanted, {len(self._free)} free")
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            self._refs[block] = 1
            self._forget(block)
        return taken

    def release(self, blocks: Sequence[int]) -> None:
        """Drop one reference of each, the last block first, so that the head of a prompt stays cached longest."""
        for block in reversed(blocks):
            self._refs[block] -= 1
            if self._refs[block] == 0:
                self._free[block] = None

    def remember(self, block: int, content: int) -> None:
        """Note that ``block`` is full and holds ``content``. The first block of a content is the one to be found."""
        if content not in self._block_of and block not in self._hash_of:
            self._hash_of[block] = content
            self._block_of[content] = block

    def reset(self) -> bool:
        """Forget all that is cached; False, and nothing is forgotten, while a block is referenced."""
        if len(self._free) < self.size:
            return False
        self._hash_of.clear()
        self._block_of.clear()
        return True

    def _forget(self, block: int) -> None:
        content = self._hash_of.pop(block, None)
        if content is not None:
            del self._block_of[content]
