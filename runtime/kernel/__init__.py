"""The only door to the kernel: system calls by name, through bare `_ctypes` (0.4 ms to import, `ctypes` takes 4.6)."""
