"""From a tool and its arguments to the text of one script. Pure.

May import: values, tool, decode.
Imported by: sandbox, functions, engine, bench, cli.
"""
