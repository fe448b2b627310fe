"""One run: a request and an image in, an outcome out.

May import: values, decode, engine.binding, engine.memory, engine.module, engine.start, engine.threads,
engine.world, engine.compiled.
Imported by: engine.
"""
