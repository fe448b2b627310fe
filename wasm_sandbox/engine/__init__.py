"""The engine room: the only code that imports wasmtime, and the one place that does not import what is above it.

May import: values, tool, script, decode.
Imported by: everything.
"""
