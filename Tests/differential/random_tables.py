# SPDX-License-Identifier: Apache-2.0
"""Random x86-64 4-level tables and requests: every kind of entry at every level, addresses that mostly hit something."""
import struct

PRESENT, WRITABLE, USER, DIRTY, PAGE_SIZE = 1 << 0, 1 << 1, 1 << 2, 1 << 6, 1 << 7
NO_EXECUTE = 1 << 63
PHYSICAL_BITS = 40
FRAMES_PER_LEVEL = {3: 1, 2: 2, 1: 3, 0: 4}  # level 3 is the root
FRAME_COUNT = sum(FRAMES_PER_LEVEL.values())
ENTRIES_PER_FRAME = 14
FIRST_FRAME = 0x100
BYTE_COUNT = FRAME_COUNT * 4096


class RandomTable:
    """`image` is the content of FRAME_COUNT frames from FIRST_FRAME on; the root is the first."""

    def __init__(self, random):
        self.random = random
        self.words = [0] * (FRAME_COUNT * 512)
        self.populated = {}  # frame offset → indices that were written
        self.frames_at = {}
        offset = 0
        for level in (3, 2, 1, 0):
            self.frames_at[level] = list(range(offset, offset + FRAMES_PER_LEVEL[level]))
            offset += FRAMES_PER_LEVEL[level]
        for level in (3, 2, 1, 0):
            for frame in self.frames_at[level]:
                indices = random.sample(range(512), ENTRIES_PER_FRAME)
                self.populated[frame] = indices
                for index in indices:
                    self.words[frame * 512 + index] = self._entry(level)
        self.image = struct.pack("<%dQ" % len(self.words), *self.words)

    def _entry(self, level):
        chance = self.random.random
        bits = self.random.getrandbits(64)
        # Accessed, Dirty, PWT, PCD, Global, software bits and protection key are random; the rest follows odds.
        entry = bits & 0x7FF0_0000_0000_0F78
        if chance() < 0.93:
            entry |= PRESENT
        if chance() < 0.8:
            entry |= WRITABLE
        if chance() < 0.88:
            entry |= USER
        if chance() < 0.15:
            entry |= NO_EXECUTE
        if chance() < 0.03:
            entry |= 1 << self.random.randrange(PHYSICAL_BITS, 52)  # reserved
        if level == 0:
            return entry | bits & ((1 << PHYSICAL_BITS) - 1) & ~0xFFF | (bits >> 20) & PAGE_SIZE  # here bit 7 is PAT
        if chance() < (0.04 if level == 3 else 0.2):
            return entry | PAGE_SIZE | self._large_leaf_address(level, bits)
        frames = self.frames_at[level - 1] if chance() < 0.95 else range(FRAME_COUNT)  # sometimes a table of any level
        return entry | (FIRST_FRAME + self.random.choice(frames)) << 12

    def _large_leaf_address(self, level, bits):
        address = bits & ((1 << PHYSICAL_BITS) - 1) & ~((1 << 12 + 9 * level) - 1) | bits & 0x1000  # bit 12 is PAT
        if self.random.random() < 0.06:
            address |= 1 << self.random.randrange(13, 12 + 9 * level)  # misaligned: reserved
        return address

    def address(self):
        """A page-aligned address: it mostly follows entries that exist, and is sometimes not canonical."""
        random, frame, address = self.random, 0, 0
        for level in (3, 2, 1, 0):
            follow = frame is not None and random.random() < 0.97
            index = random.choice(self.populated[frame]) if follow else random.randrange(512)
            address |= index << 12 + 9 * level
            if frame is not None:
                entry = self.words[frame * 512 + index]
                target = (entry >> 12 & 0xFF_FFFF_FFFF) - FIRST_FRAME
                descends = level > 0 and entry & PRESENT and not entry & PAGE_SIZE and 0 <= target < FRAME_COUNT
                frame = target if descends else None
        if address >> 47:
            address |= 0xFFFF << 48
        if random.random() < 0.02:
            address ^= random.choice((0xFFFF << 48, 1 << random.randrange(48, 64)))  # wrong by all upper bits, or by one
        return address
