"""What a guest can call: streams, clocks, files, mounts, and the world that holds them.

May import: values, engine.binding, engine.threads.
Imported by: engine.
"""
