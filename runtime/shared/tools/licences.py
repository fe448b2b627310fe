"""Collect the licence texts of everything that is linked or frozen into the guest.

Usage: licences.py BUILD_ROOT RUNTIME FLAVOUR      (after a build; see runtime/README.md)
Writes one file per component, one for the Rust crates, and an index. A flavour has those of what it adds.
"""

import pathlib
import re
import sys
import tomllib
from collections.abc import Callable, Iterable

CC0 = "usr/share/common-licenses/CC0-1.0"
RUST_STD = ("addr2line", "adler2", "dlmalloc", "gimli", "hashbrown", "memchr", "miniz_oxide", "object")
PREFERRED = ("LICENSE-MIT", "LICENSE-MIT.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "LICENSE-APACHE", "UNLICENSE")

ORJSON_CRATES = {
    "associative-cache-3.0.1": "LICENSE-MIT", "bytecount-0.6.9": "LICENSE.MIT", "itoap-1.0.1": "LICENSE",
    "jiff-core-0.1.1": "LICENSE-MIT", "once_cell-1.21.4": "LICENSE-MIT", "pyo3-ffi-0.29.3": "LICENSE-MIT",
    "simdutf8-0.1.5": "LICENSE-MIT", "xxhash-rust-0.8.19": "LICENSE", "zmij-1.0.23": "LICENSE-MIT",
}  # fmt: skip
"""What is linked of the crates in orjson's archive; the others are for other targets, or for its build."""

MIT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

DLMALLOC = """\
wasi-libc's allocator is dlmalloc by Doug Lea, "released to the public domain, as explained at
http://creativecommons.org/publicdomain/zero/1.0/".
"""


def text(path: pathlib.Path) -> str:
    lines = path.read_text(errors="replace").replace("\f", "").splitlines()
    return "\n".join(line for line in lines if not line.startswith("Format: ")).strip("\n") + "\n"


def comment(path: pathlib.Path) -> str:
    """The first block comment of a C file."""
    body = text(path).partition("/*")[2].partition("*/")[0]
    return "\n".join(re.sub(r"^ ?\* ?", "", line).rstrip() for line in body.splitlines()).strip() + "\n"


def markup_comment(path: pathlib.Path) -> str:
    """The first comment with a copyright of an XML file."""
    comments = re.findall("<!--(.*?)-->", text(path), re.DOTALL)
    return next(found for found in comments if "opyright" in found).strip() + "\n"


def after(path: pathlib.Path, heading: str) -> str:
    return heading + text(path).partition(heading)[2]


def joined(*parts: str) -> str:
    return ("\n" + "-" * 100 + "\n\n").join(parts)


def science(root: pathlib.Path) -> dict[str, tuple[str, str, Callable[[], str]]]:
    """As `components`, of what the flavour of this name adds."""
    work = root / "guest/flavours/science"
    numpy, pandas, doc = work / "numpy", work / "pandas", root / "usr/share/doc"
    parts = (
        "numpy/linalg/lapack_lite/LICENSE.txt", "numpy/fft/pocketfft/LICENSE.md", "numpy/random/LICENSE.md",
        "numpy/_core/src/multiarray/dragon4_LICENSE.txt", "numpy/_core/include/numpy/libdivide/LICENSE.txt",
        "numpy/_core/src/highway/LICENSE", "numpy/ma/LICENSE",
    )  # fmt: skip
    (dateutil,) = work.glob("site/python_dateutil-*.dist-info/licenses/LICENSE")
    own = sorted((pandas / "LICENSES").iterdir())
    vendored = sorted((pandas / "subprojects").glob("fast_float-*/LICENSE*"))
    return {
        "numpy.txt": (
            "numpy, with lapack_lite, pocketfft, Highway, libdivide and dragon4",
            "BSD-3-Clause and others, each named in the file",
            lambda: joined(text(numpy / "LICENSE.txt"), *(text(numpy / part) for part in parts)),
        ),
        "pandas.txt": (
            "pandas, with khash, ultrajson, fast_float and others",
            "BSD-3-Clause and others, each named in the file",
            lambda: joined(*(text(file) for file in [pandas / "LICENSE", *own, *vendored])),
        ),
        "python-dateutil.txt": ("python-dateutil", "Apache-2.0 OR BSD-3-Clause", lambda: text(dateutil)),
        "regex.txt": ("regex", "Apache-2.0 AND CNRI-Python", lambda: text(work / "regex/LICENSE.txt")),
        "libc++.txt": (
            "LLVM's libc++ and libc++abi",
            "Apache-2.0 WITH LLVM-exception",
            lambda: text(doc / "libc++-21-dev-wasm32/copyright"),
        ),
        **pictures(work),
        **markup(work),
        "orjson.txt": (
            "orjson, with yyjson and the crates that its archive carries",
            "MPL-2.0 AND (Apache-2.0 OR MIT) and others, each named in the file",
            lambda: joined(
                *(text(file) for file in sorted((work / "orjson").glob("LICENSE-*"))),
                "yyjson:\n\n" + comment(work / "orjson/include/yyjson/yyjson.h"),
                *(
                    f"{crate}:\n\n{text(work / 'orjson/include/cargo' / crate / file)}"
                    for crate, file in ORJSON_CRATES.items()
                ),
            ),
        ),
    }


def markup(work: pathlib.Path) -> dict[str, tuple[str, str, Callable[[], str]]]:
    """Of lxml, and what it is built with."""
    schematron = work / "lxml/src/lxml/isoschematron/resources"
    return {
        "lxml.txt": (
            "lxml, with the skeleton of ISO Schematron",
            "BSD-3-Clause and others, each named in the file",
            lambda: joined(
                text(work / "lxml/LICENSES.txt").partition("Binary wheels\n")[0],
                *(text(work / "lxml/doc/licenses" / name) for name in ("BSD.txt", "elementtree.txt")),
                *(
                    markup_comment(schematron / name)
                    for name in (
                        "rng/iso-schematron.rng",
                        "xsl/iso-schematron-xslt1/iso_schematron_skeleton_for_xslt1.xsl",
                    )
                ),
            ),
        ),
        "libxml2.txt": ("libxml2, in lxml", "MIT", lambda: text(work / "libxml2/Copyright")),
        "libxslt.txt": ("libxslt and libexslt, in lxml", "MIT", lambda: text(work / "libxslt/Copyright")),
    }


def pictures(work: pathlib.Path) -> dict[str, tuple[str, str, Callable[[], str]]]:
    """Of Pillow, matplotlib, and what they are built with."""
    agg = work / "matplotlib/extern/agg24-svn/src/copying"
    fonts = work / "matplotlib/lib/matplotlib/mpl-data/fonts/ttf"

    def files(*names: str) -> Callable[[], str]:
        return lambda: joined(*(text(file) for name in names for file in sorted(work.glob(name))))

    return {
        "pillow.txt": ("Pillow", "MIT-CMU", files("pillow/LICENSE")),
        "libjpeg-turbo.txt": (
            "libjpeg-turbo, in Pillow",
            "IJG AND BSD-3-Clause",
            files("libjpeg/LICENSE.md", "libjpeg/README.ijg"),
        ),
        "libwebp.txt": ("libwebp, in Pillow", "BSD-3-Clause", files("libwebp/COPYING", "libwebp/PATENTS")),
        "freetype.txt": (
            "FreeType, in Pillow and matplotlib",
            "FTL",
            files("freetype/LICENSE.TXT", "freetype/docs/FTL.TXT"),
        ),
        "matplotlib.txt": (
            "matplotlib, with Agg and the fonts DejaVu, STIX and BaKoMa",
            "PSF-2.0 and others, each named in the file",
            lambda: joined(
                *(text(file) for file in sorted((work / "matplotlib/LICENSE").iterdir())),
                text(agg),
                *(text(file) for file in sorted(fonts.glob("LICENSE_*"))),
            ),
        ),
        "qhull.txt": ("Qhull, in matplotlib", "Qhull", files("qhull/COPYING.txt")),
        "contourpy.txt": ("contourpy", "BSD-3-Clause", files("contourpy/LICENSE")),
        "kiwisolver.txt": ("kiwisolver", "BSD-3-Clause", files("kiwisolver/LICENSE")),
        "cycler.txt": ("cycler", "BSD-3-Clause", files("site/cycler-*.dist-info/LICENSE")),
        "pyparsing.txt": ("pyparsing", "MIT", files("site/pyparsing-*.dist-info/licenses/LICENSE")),
        "pybind11.txt": ("pybind11", "BSD-3-Clause", files("matplotlib-headers/pybind11-*.dist-info/LICENSE")),
        "cppy.txt": ("cppy", "BSD-3-Clause", files("matplotlib-headers/cppy-*.dist-info/LICENSE")),
    }


def components(root: pathlib.Path) -> dict[str, tuple[str, str, Callable[[], str]]]:
    """File name -> what it is for, its licence, its text."""
    guest = root / "guest"
    python, site = guest / "Python-3.13.15", guest / "flavours" / "plain" / "reactor" / "site"
    doc = root / "usr/share/doc"

    def wheel(name: str, *files: str) -> Callable[[], str]:
        (info,) = site.glob(f"{name}-*.dist-info")
        return lambda: joined(*(text(info / "licenses" / file) for file in files))

    return {
        "cpython.txt": (
            "CPython and its library",
            "PSF-2.0",
            lambda: joined(
                text(python / "LICENSE"),
                after(python / "Doc/license.rst", "Licenses and Acknowledgements for Incorporated Software"),
            ),
        ),
        "expat.txt": ("Expat, in pyexpat", "MIT", lambda: text(python / "Modules/expat/COPYING")),
        "libmpdec.txt": (
            "libmpdec, in _decimal",
            "BSD-2-Clause",
            lambda: comment(python / "Modules/_decimal/libmpdec/mpdecimal.c"),
        ),
        "hacl.txt": (
            "HACL*, in the hash modules",
            "MIT",
            lambda: comment(python / "Modules/_hacl/Hacl_Hash_SHA2.c"),
        ),
        "blake2.txt": (
            "BLAKE2, in _blake2",
            "CC0-1.0",
            lambda: joined(comment(python / "Modules/_blake2/impl/blake2.h"), text(root / CC0)),
        ),
        "zlib.txt": ("zlib", "Zlib", lambda: text(guest / "zlib/LICENSE")),
        "bzip2.txt": ("bzip2", "bzip2-1.0.6", lambda: text(guest / "bzip2/LICENSE")),
        "liblzma.txt": (
            "liblzma",
            "0BSD",
            lambda: "Copyright (C) The XZ Utils authors and contributors\n\n" + text(guest / "xz/COPYING.0BSD"),
        ),
        "sqlite.txt": ("SQLite", "blessing (public domain)", lambda: text(guest / "sqlite/LICENSE.md")),
        "wasi-libc.txt": (
            "wasi-libc with musl, cloudlibc and dlmalloc",
            "CC0-1.0, MIT, BSD-2-Clause and others",
            lambda: joined(text(doc / "wasi-libc/copyright"), DLMALLOC, text(root / CC0)),
        ),
        "compiler-rt.txt": (
            "LLVM's compiler-rt",
            "Apache-2.0 WITH LLVM-exception",
            lambda: text(doc / "libclang-rt-21-dev-wasm32/copyright"),
        ),
        "rust-std.txt": (
            "Rust's standard library, with the crates in it",
            "MIT OR Apache-2.0",
            lambda: rust_std(text(doc / "libstd-rust-dev-wasm32/copyright")),
        ),
        "pydantic.txt": ("pydantic", "MIT", wheel("pydantic", "LICENSE")),
        "pydantic-core.txt": ("pydantic_core", "MIT", lambda: text(guest / "pydantic-core/LICENSE")),
        "typing-extensions.txt": ("typing_extensions", "PSF-2.0", wheel("typing_extensions", "LICENSE")),
        "typing-inspection.txt": ("typing_inspection", "MIT", wheel("typing_inspection", "LICENSE")),
        "annotated-types.txt": ("annotated_types", "MIT", wheel("annotated_types", "LICENSE")),
        "packaging.txt": (
            "packaging",
            "Apache-2.0 OR BSD-2-Clause",
            wheel("packaging", "LICENSE", "LICENSE.APACHE", "LICENSE.BSD"),
        ),
        "tzdata.txt": ("tzdata", "Apache-2.0", wheel("tzdata", "LICENSE", "licenses/LICENSE_APACHE")),
        "rust-crates.txt": (
            "the crates that pydantic_core is built of",
            "each named in the file",
            lambda: crates(root),
        ),
    }


def rust_std(copyright_file: str) -> str:
    lines = ["The Rust standard library: Copyright (c) The Rust Project Contributors. MIT OR Apache-2.0.", ""]
    lines.append("Crates linked into it (MIT OR Apache-2.0, or MIT alone; used under MIT):")
    stanzas = [stanza for stanza in copyright_file.split("\n\n") if stanza.startswith("Files:")]
    for crate in RUST_STD:
        stanza = next(s for s in stanzas if re.search(rf"vendor/{crate}-", s.partition("Copyright:")[0]))
        holders = re.search(r"^Copyright:(.*?)^License:", stanza, re.MULTILINE | re.DOTALL)
        found = [line.strip() for line in holders[1].splitlines() if line.strip()] if holders else []
        lines += [f"  {crate}: Copyright (c) {'; '.join(found)}"]
    return "\n".join(lines) + "\n\n" + MIT


def crates(root: pathlib.Path) -> str:
    """The crates compiled for the guest, then each distinct text once, with the copyright lines of all its users."""
    target = root / "guest/pydantic-core/target/wasm32-wasip1/release/.fingerprint"
    built = {re.sub(r"-[0-9a-f]{16}$", "", p.name) for p in target.iterdir()} - {"pydantic-core"}
    lock = tomllib.loads((root / "guest/pydantic-core/Cargo.lock").read_text())["package"]
    versions = [(p["name"], p["version"]) for p in lock if p["name"] in built]
    index, texts = [], {}
    for name, version in versions:
        directory = root / "usr/share/cargo/registry" / f"{name}-{version}"
        package = tomllib.loads((directory / "Cargo.toml").read_text())["package"]
        licence = package.get("license", "see its text")
        index.append(f"{name} {version}: {licence}")
        files = [file for file in PREFERRED if (directory / file).is_file()][:1]
        files += [p.name for p in directory.glob("LICENSE-UNICODE*")]
        bodies = [text(directory / file) for file in files] or [generic(package)]
        for body in bodies:
            holders, rest = split_copyright(body)
            entry = texts.setdefault(" ".join(rest.split()).lower(), (rest, []))
            entry[1].append((f"{name} {version}", holders or authors(package)))
    parts = ["\n".join(["Crates linked into the guest, with their licences (SPDX):", "", *index, ""])]
    for rest, users in texts.values():
        lines = []
        for crate, holders in users:
            lines.append(f"{crate}:")
            lines += [f"  {line}" for line in holders]
        parts.append("\n".join(lines) + "\n\n" + rest.strip() + "\n")
    return joined(*parts)


def authors(package: dict[str, object]) -> list[str]:
    named = package.get("authors") or ["the authors of the crate"]
    return [f"Copyright (c) {author}" for author in named] if isinstance(named, list) else []


def generic(package: dict[str, object]) -> str:
    licence = str(package.get("license", ""))
    if "MIT" not in licence:
        raise SystemExit(f"crate {package['name']} ({licence}) carries no licence text: add it by hand")
    return "\n".join([*authors(package), "", MIT])


def split_copyright(body: str) -> tuple[list[str], str]:
    """The copyright lines of a text, and what is left: the text shared with others under the same licence."""
    if "Apache License" in body[:400]:
        return [], body
    lines = body.splitlines()
    titles = re.compile(r"^\s*#*\s*(the\s+)?mit license( \(mit\))?\s*$|^\s*permissive license\s*$", re.IGNORECASE)
    holders = [line.strip() for line in lines if re.match(r"\s*(// |\|\| )?Copyright\b", line)]
    rest = [line for line in lines if line.strip() not in holders and not titles.match(line)]
    return holders, "\n".join(rest).strip("\n")


def index(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = [
        "# Licences of what is inside the guest",
        "",
        "The library itself is under Apache-2.0 (`LICENSE`). The guest module that it carries is built from the",
        "components below; versions and sources are in `runtime/shared/manifest.toml` and",
        "`runtime/shared/toolchain.lock`. This directory is written by `runtime/shared/tools/licences.py`.",
        "",
        "| component | licence | text |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {what} | {licence} | [{file}]({file}) |" for file, what, licence in rows]
    return "\n".join(lines) + "\n"


def main(root_path: str, runtime_path: str, flavour: str) -> None:
    target = pathlib.Path(runtime_path) / flavour / "licenses"
    target.mkdir(exist_ok=True)
    rows = []
    listed = {"plain": components, "science": science}[flavour](pathlib.Path(root_path))
    for file, (what, licence, write) in listed.items():
        (target / file).write_text(write())
        rows.append((file, what, licence))
    (target / "README.md").write_text(index(rows))
    print(f"{len(rows)} licence files")


if __name__ == "__main__":
    main(*sys.argv[1:])
