"""Start of a script in an instance: of our own guest, and of any other CPython for WASI.

May import: values, decode, engine.binding.
Imported by: engine.
"""
