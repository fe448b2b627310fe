"""Write the resources of lxml.isoschematron as a Python module, to be frozen.

Usage: schematron_data.py RESOURCES MODULE
"""

import pathlib
import sys
import zlib


def main(resources_path: str, module_path: str) -> None:
    resources = pathlib.Path(resources_path)
    files = sorted(file for file in resources.rglob("*") if file.suffix in (".rng", ".xsl"))
    data = {file.relative_to(resources).as_posix(): zlib.compress(file.read_bytes(), 9) for file in files}
    pathlib.Path(module_path).write_text(f"DATA = {data!r}\n")
    print(f"{len(data)} resources")


if __name__ == "__main__":
    main(*sys.argv[1:])
