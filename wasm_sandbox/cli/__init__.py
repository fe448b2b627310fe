"""The command: thin, every verb one call of a public name.

May import: public names, values; doctor and bench also the engine.
Imported by: faces.
"""
