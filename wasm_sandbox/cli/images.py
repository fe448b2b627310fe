"""The verbs of ``wasm-sandbox`` about images and their cache."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

import wasm_sandbox
from wasm_sandbox import images
from wasm_sandbox.cli.display import print_json, print_line, print_row
from wasm_sandbox.cli.inputs import CommandError, parse_size, read_pairs, read_source
from wasm_sandbox.cli.options import json_option
from wasm_sandbox.cli.progress import in_sight
from wasm_sandbox.errors import ImageError
from wasm_sandbox.sizes import size_text
from wasm_sandbox.switches import IMAGE_VARIABLE

T = TypeVar("T")


@click.group("image")
def image_verbs() -> None:
    """Make images: guests with your packages already imported. run --image NAME runs in one."""


@image_verbs.command("build")
@click.argument("name")
@click.argument("requirements", nargs=-1, metavar="[REQUIREMENT]...")
@click.option("--base", metavar="IMAGE", help="The built-in image to start from: science has numpy and pandas.")
@click.option(
    "--package", "packages", multiple=True, metavar="PATH", help="A local package: a directory, .py file or wheel."
)
@click.option(
    "--preload",
    multiple=True,
    metavar="MODULE",
    help="A module to import beforehand; by default the top-level ones of what is named.",
)
@click.option(
    "--file", "files", multiple=True, metavar="GUEST=HOST", help="A file of this host that every run finds at GUEST."
)
@click.option("--warm-up", metavar="FILE", help="Python to run in the guest beforehand.")
@click.option("--installer", type=click.Choice(["pip", "uv"]), help="What to download with.")
@click.option("--upgrade", is_flag=True, help="Resolve anew what was resolved before.")
def build_image(
    *,
    name: str,
    requirements: Sequence[str],
    base: str | None,
    packages: Sequence[str],
    preload: Sequence[str],
    files: Sequence[str],
    warm_up: str | None,
    installer: str | None,
    upgrade: bool,
) -> None:
    """Make an image with packages, and keep it as NAME.

    \b
    wasm-sandbox image build my-tools lark 'tabulate>=0.9'
    wasm-sandbox run tool.py --image my-tools

    Packages are pure Python wheels, resolved and downloaded by pip or uv. Nothing of them is executed on this
    host; in a guest they are imported, once, and every run starts from there.
    """
    pairs = read_pairs("--file", files, "say where the file is", "PATH")
    code = read_source(warm_up) if warm_up else ""
    image = _checked(
        lambda: in_sight(
            lambda step: wasm_sandbox.Image.build(
                requirements,
                base=base,
                packages=packages,
                preload=preload or None,
                files={guest: Path(host) for guest, host in pairs},
                warm_up=code,
                name=name,
                installer=installer,
                upgrade=upgrade,
                progress=step,
            )
        )
    )
    contents = ", ".join(f"{one} {version}" for one, version in sorted(image.distributions.items()))
    print_row(f"{name}: image {image.id[:12]}" + (f" with {contents}" if contents else ""))


@image_verbs.command("list")
@json_option
def list_images(*, as_json: bool) -> None:
    """List the images of this machine: name, id, sizes kept and compiled, and what is in them."""
    rows = [(kept, images.describe(kept)) for kept in images.kept_images()]
    if as_json:
        print_json([description for _, description in rows])
        return
    for kept, description in rows:
        names = ", ".join(kept.names) or "-"
        contents = ", ".join(kept.recipe.requirements) or "no packages"
        print_row(f"{names}  {description['id'][:12]}  {_sizes(description)}  {contents}")


@image_verbs.command("show")
@click.argument("name")
@json_option
def show_image(*, name: str, as_json: bool) -> None:
    """Show what an image is made of, its sizes, and the memory that a run in it needs."""
    kept = images.kept_image(name)
    description = images.describe(kept)
    if as_json:
        print_json(description)
        return
    versions = ", ".join(f"{one} {version}" for one, version in kept.recipe.distributions.items())
    needed = description["needed_memory_bytes"]
    for title, text in (
        ("names", ", ".join(kept.names)),
        ("id", description["id"]),
        ("base", kept.recipe.base),
        ("requirements", ", ".join(kept.recipe.requirements)),
        ("distributions", versions),
        ("preloaded", ", ".join(kept.recipe.preload)),
        ("warm-up", f"{kept.recipe.warm_up.count(chr(10))} lines" if kept.recipe.warm_up else ""),
        ("files", ", ".join(kept.recipe.files)),
        ("package files", str(len(kept.recipe.packages))),
        ("made", kept.entry.made_at.isoformat(timespec="seconds")),
        ("sizes", _sizes(description)),
        ("a run needs", f"--memory {needed >> 20}M or more" if needed else ""),
    ):
        if text:
            print_row(f"{title}: {text}")


@image_verbs.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def remove_images(*, names: Sequence[str]) -> None:
    """Remove images: their names, what was downloaded for them, and their compiled code."""
    for name in names:
        others = images.remove_image(name)
        left = f"; the image is still {', '.join(others)}" if others else ""
        print_row(f"{name}: removed{left}")


@image_verbs.command("export")
@click.argument("arguments", nargs=-1, required=True, metavar="[NAME] DIR")
@click.option("--target", metavar="TARGET", help="The machine, such as x86_64-linux; by default this one.")
@click.option("--compiler", metavar="PATH", help="The wasmtime command, for another kind of machine than this one.")
def export_image(*, arguments: Sequence[str], target: str | None, compiler: str | None) -> None:
    """Write an image, the default one or NAME, to DIR, compiled for a machine.

    There WASM_SANDBOX_IMAGE=DIR makes it the default image: with no compiler run, no writable directory and no
    network. Targets: x86_64-linux, aarch64-linux, x86_64-macos, aarch64-macos, x86_64-windows. For another one
    than this machine's own the wasmtime command of the installed version is needed.
    """
    if len(arguments) > 2:
        raise CommandError("image export: give one DIR, or NAME and DIR")
    name, directory = arguments if len(arguments) == 2 else (None, arguments[0])
    chosen = images.image_of(name)
    wanted, place = target or images.this_target(), Path(directory)
    manifest = _checked(
        lambda: in_sight(lambda step: images.export_image(chosen, wanted, place, step, compiler=compiler))
    )
    print_line(
        f"{directory}: image {manifest.id[:12]} for {manifest.target}, {size_text(manifest.code_bytes)}; "
        f"use it with {IMAGE_VARIABLE}={directory}"
    )


# --- The cache ------------------------------------------------------------------------------------------


@click.group("cache")
def cache_verbs() -> None:
    """Look after the cache of compiled images."""


@cache_verbs.command("prune")
@click.option("--all", "everything", is_flag=True, help="Remove all that is not in use.")
@click.option("--older", metavar="TIME", help="Remove what was not used for so long: 12h, 30d, 2w.")
@click.option("--max-size", metavar="SIZE", help="Remove what was not used the longest, until so much is left.")
def prune_cache(*, everything: bool, older: str | None, max_size: str | None) -> None:
    """Remove compiled images; they are prepared again when they are needed.

    Without an option: until the cache is at its ceiling, WASM_SANDBOX_CACHE_SIZE or 2G. What is in use is never
    removed.
    """
    ceiling = None
    if everything:
        ceiling = -1
    elif max_size:
        ceiling = parse_size(max_size)
    elif older is not None:
        ceiling = sys.maxsize
    state = images.prune_cache(ceiling, unused_seconds=_seconds(older) if older else None)
    for entry in state.removed:
        print_line(f"removed {entry.path.name} ({size_text(entry.size_bytes)})")
    total = size_text(sum(entry.size_bytes for entry in state.left))
    print_line(f"{state.directory}: {len(state.left)} compiled image{'' if len(state.left) == 1 else 's'}, {total}")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)\s*([hdw])", text.strip())
    if match is None:
        raise CommandError(f"--older {text}: write a number of hours, days or weeks: 12h, 30d, 2w")
    return int(match[1]) * {"h": 3600.0, "d": 86_400.0, "w": 604_800.0}[match[2]]


# --- What is printed ------------------------------------------------------------------------------------


def _sizes(description: dict[str, Any]) -> str:
    compiled = description["compiled_bytes"]
    parts = [
        f"kept {size_text(description['kept_bytes'])}",
        f"compiled {size_text(compiled)}" if compiled is not None else "not compiled now",
    ]
    if description["memory_bytes"]:
        parts.append(f"memory {size_text(description['memory_bytes'])}")
    return ", ".join(parts)


def _checked(work: Callable[[], T]) -> T:
    """Result of ``work``; what it finds wrong with the user's own input is bad usage, and no fault of the host."""
    try:
        return work()
    except (ImageError, ValueError) as error:
        raise CommandError(str(error)) from error
