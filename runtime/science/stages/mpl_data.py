"""Write the files of mpl-data as Python modules, to be frozen.

Usage: mpl_data.py MPL_DATA PACKAGE
In PACKAGE `_data_files.py` gets the texts (matplotlibrc, styles) and the names of the modules of the fonts, and each
font a module beside it, compressed. Fonts for PDF and PostScript, images of tool bars and sample data are left out.
"""

import pathlib
import sys
import zlib


def main(data_path: str, package_path: str) -> None:
    data, package = pathlib.Path(data_path), pathlib.Path(package_path)
    texts = {"matplotlibrc": (data / "matplotlibrc").read_text().replace("\n##backend: Agg", "\n#backend: Agg")}
    texts |= {f"stylelib/{file.name}": file.read_text() for file in sorted(data.glob("stylelib/*.mplstyle"))}
    fonts = {}
    for number, file in enumerate(sorted(data.glob("fonts/ttf/*.ttf"))):
        module = f"_data_font_{number}"
        fonts[f"fonts/ttf/{file.name}"] = f"matplotlib.{module}"
        compressed = zlib.compress(file.read_bytes(), 9)
        (package / f"{module}.py").write_text(f"DATA = {compressed!r}  # {file.name}\n")
    (package / "_data_files.py").write_text(f"TEXTS = {texts!r}\nFONTS = {fonts!r}\n")
    print(f"{len(texts)} texts, {len(fonts)} fonts")


if __name__ == "__main__":
    main(*sys.argv[1:])
