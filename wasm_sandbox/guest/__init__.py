"""The engine room: the only code that imports wasmtime."""
