"""World of a guest: the capabilities (streams, clocks, files, mounts, process) whose imports it may call.

May import: values, engine.binding, engine.threads.
Imported by: engine.
"""
