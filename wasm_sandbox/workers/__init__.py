"""Guests in other processes: the pool, what crosses to a worker, what it gives up.

May import: values, decode, images, engine.
Imported by: sandbox, cli.
"""
