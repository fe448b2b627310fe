"""What users hold: one call of one tool, from arguments to result.

May import: values, tool, script, decode, images, stores, workers, engine.
Imported by: cli, bench, faces.
"""
