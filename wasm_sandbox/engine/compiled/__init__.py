"""From the guest as built to instances: identity, cache, preparation, loading.

May import: values, tool, script, decode, engine.binding, engine.module, engine.memory, engine.start,
engine.threads, engine.world.
Imported by: engine.
"""
