"""WebAssembly bytes in, WebAssembly bytes out: metering, snapshots, the file of an image.

May import: values.
Imported by: engine.
"""
