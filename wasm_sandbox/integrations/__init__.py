"""Adapters to agent frameworks, one file each, imported by name: ``from wasm_sandbox.integrations import smolagents``.

Nothing of a framework is imported but by its own file.

May import: values, faces.
Imported by: nobody.
"""
