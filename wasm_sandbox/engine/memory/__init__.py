"""Linear memory of guests, and the page and the signals that stop and pause them.

May import: values, engine.binding, engine.module.
Imported by: engine.
"""
