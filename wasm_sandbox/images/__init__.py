"""Images of the user's: what is in them, where they are kept, how they are built and exported.

May import: values, tool, engine.
Imported by: sandbox, workers, cli, bench, faces.
"""
