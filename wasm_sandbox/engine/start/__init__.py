"""How a script is started in an instance: our own guest, and any other CPython for WASI.

May import: values, decode, engine.binding.
Imported by: engine.
"""
