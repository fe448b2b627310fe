"""What is bound of wasmtime: its C API, its configuration, its version; and which interpreters it can serve.

May import: values.
Imported by: engine.
"""
