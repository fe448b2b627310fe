"""Thread pool for guests, scheduler of their turns, and watchdog.

May import: values.
Imported by: engine.
"""
