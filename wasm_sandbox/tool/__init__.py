"""What a tool is: its definition, its source, its annotations, its schema. Pure.

May import: values.
Imported by: faces, script, sandbox, stores, cli, bench, engine, images.
"""
