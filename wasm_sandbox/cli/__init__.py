"""The command: every verb is one call of a public name. Only ``doctor`` and ``bench`` may ask the engine's door.

May import: faces, values, images, sandbox, serve, stores, workers, bench, engine, tool, mcp.
Imported by: faces.
"""
