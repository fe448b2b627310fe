"""From hostile bytes to a value: the frame, the pickle in it, what it means. Pure.

May import: values.
Imported by: script, sandbox, engine, workers, bench.
"""
