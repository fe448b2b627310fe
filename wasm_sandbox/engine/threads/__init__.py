"""Threads that guests run on, the order of their turns, and the watchdog over them all.

May import: values.
Imported by: engine.
"""
