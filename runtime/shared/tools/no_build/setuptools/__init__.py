"""Stands for setuptools: lets ``pip download`` save an sdist that is built with it without running it."""
