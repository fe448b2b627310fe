"""Binding of wasmtime: its C API, its configuration, its version; and the check of the interpreter.

May import: values.
Imported by: engine.
"""
