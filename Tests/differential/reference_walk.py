# SPDX-License-Identifier: Apache-2.0
"""The reference side: unicorn's x86-64 page walk as a user-mode access, over tables in emulated physical memory.

`uc_vmem_translate` is a C function of the wheel's library that the Python class does not offer; it answers PA or
refusal and updates Accessed and Dirty. What must hold first, in this order: a CPU model with SMAP (Icelake-Server),
CR4, EFER, CR0.PG, CR3; ring 3 by executing SYSRET once, since writing CS does not change the privilege; and CR3 written
again before each request, so that no entry of the emulated TLB answers for the table.
"""
import ctypes

import unicorn
from unicorn import unicorn_const, x86_const

READ, WRITE, EXECUTE = 0, 1, 2
PROTECTION = (unicorn_const.UC_PROT_READ, unicorn_const.UC_PROT_WRITE, unicorn_const.UC_PROT_EXEC)

CR4 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 20 | 1 << 21  # PAE, OSFXSR, OSXMMEXCPT, SMEP, SMAP
EFER = 1 << 0 | 1 << 8 | 1 << 10 | 1 << 11  # SCE, LME, LMA, NXE
CR0 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31  # PE, MP, ET, NE, WP, PG
IA32_EFER, IA32_STAR = 0xC0000080, 0xC0000081

BOOT = 0x1000  # root, three tables and two pages of code, below everything that a test installs
BOOT_CODE = 0x5000
USER_CODE = 0x6000


class ReferenceWalk:
    def __init__(self, memory_bytes):
        engine = unicorn.Uc(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64)
        engine.ctl_set_cpu_model(x86_const.UC_CPU_X86_ICELAKE_SERVER)
        engine.mem_map(0, memory_bytes)
        self.engine = engine
        self._translate = self._c_function()
        self._physical = ctypes.c_uint64()
        self._enter_user_mode()

    def _c_function(self):
        # The class has loaded the library already; unicorn's own module object knows where.
        from unicorn.unicorn_py3 import unicorn as binding

        function = binding.uclib.uc_vmem_translate
        function.restype = ctypes.c_int
        function.argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.POINTER(ctypes.c_uint64))
        handle = self.engine._uch

        def translate(address, protection, physical):
            return function(handle, address, protection, physical)

        return translate

    def _enter_user_mode(self):
        engine = self.engine
        flags = 0x7  # present, writable, user
        for level in range(3):
            engine.mem_write(BOOT + 0x1000 * level, (BOOT + 0x1000 * (level + 1) | flags).to_bytes(8, "little"))
        # SYSRET stands in a supervisor page (SMEP), and one NOP in the user page that it returns to.
        engine.mem_write(BOOT + 0x3000 + 8 * 5, (BOOT_CODE | 0x3).to_bytes(8, "little"))
        engine.mem_write(BOOT + 0x3000 + 8 * 6, (USER_CODE | 0x7).to_bytes(8, "little"))
        engine.mem_write(BOOT_CODE, b"\x48\x0f\x07")
        engine.mem_write(USER_CODE, b"\x90\x90")
        engine.reg_write(x86_const.UC_X86_REG_CR4, CR4)
        engine.msr_write(IA32_EFER, EFER)
        engine.msr_write(IA32_STAR, 0x0013_0008 << 32)
        engine.reg_write(x86_const.UC_X86_REG_CR0, CR0)
        engine.reg_write(x86_const.UC_X86_REG_CR3, BOOT)
        engine.reg_write(x86_const.UC_X86_REG_RCX, USER_CODE)
        engine.reg_write(x86_const.UC_X86_REG_R11, 0x202)
        engine.emu_start(BOOT_CODE, USER_CODE + 1)
        if engine.reg_read(x86_const.UC_X86_REG_CS) & 3 != 3:
            raise RuntimeError("the reference did not reach ring 3")

    def install(self, physical_address, image):
        self.engine.mem_write(physical_address, image)

    def image(self, physical_address, byte_count):
        return bytes(self.engine.mem_read(physical_address, byte_count))

    def translate(self, root, address, access):
        """The physical address, or None when the access is refused. `address` is page-aligned."""
        self.engine.reg_write(x86_const.UC_X86_REG_CR3, root)
        status = self._translate(address, PROTECTION[access], self._physical)
        return self._physical.value if status == 0 else None
