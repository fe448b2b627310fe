"""`Image`: the content of a guest before a tool runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wasm_sandbox.errors import naming_exhaustion

if TYPE_CHECKING:
    from wasm_sandbox.engine import ImageSource


@dataclass(frozen=True)
class Image:
    """Image of a guest to run tools in: the default one with your packages, or another CPython.

    Hand it to ``run_tool(..., image=...)``, `WasmToolSandbox` or `SandboxConfig`; a named one by its name, too.

    Attributes:
        id: identity: images of the same inputs have the same one.
        name: name under which the image is kept on this machine, if it has one.
    """

    source: ImageSource = field(repr=False)
    """Source from which the engine loads the image."""
    name: str | None = None

    @property
    def id(self) -> str:
        return self.source.id

    @property
    def distributions(self) -> Mapping[str, str]:
        """Python distributions beyond those of every guest: name -> version."""
        return self.source.distributions

    @property
    def has_own_guest(self) -> bool:
        """Whether the guest is our own, and not another CPython."""
        from wasm_sandbox.engine import StartKind  # lazy: loads the engine

        return self.source.start is StartKind.REACTOR

    @property
    def reference(self) -> str:
        """Name, else id, by which the image is found on this machine."""
        return self.name or self.id

    @classmethod
    @naming_exhaustion()
    def build(
        cls,
        requirements: Sequence[str] = (),
        *,
        base: str | None = None,
        packages: Sequence[str | Path] = (),
        preload: Sequence[str] | None = None,
        files: Mapping[str, str | Path | bytes] | None = None,
        warm_up: str = "",
        name: str | None = None,
        installer: str | None = None,
        upgrade: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> Image:
        """Build an image: a built-in one with packages in its memory, imported, before any run.

        The packages are resolved and downloaded by pip or uv, as wheels of pure Python; nothing of them is executed
        on this host. They are imported in a guest, once. The image that the same call built before on this machine is
        taken again, without any network.

        Args:
            requirements: requirements to install, as pip takes them: names with versions, extras and markers.
            base: built-in image to start from: ``"science"`` has numpy and pandas, and what requires them finds them
                there; by default the plain one.
            packages: local packages: directories with an ``__init__.py``, modules (``.py``), wheels (``.whl``).
            preload: modules to import, in order; by default the top-level ones of the distributions that
                ``requirements`` and ``packages`` name (and not of their dependencies).
            files: files that every run finds: absolute guest path -> contents, or path of a file on this host.
            warm_up: Python source to run in the guest after that: every run finds the state that it leaves.
            name: name to keep the image under; another image of that name loses it.
            installer: ``"pip"`` or ``"uv"``; by default pip of this Python, else uv.
            upgrade: whether to resolve requirements anew that were resolved before.
            progress: called with a few words at the start of every slow step.

        Raises:
            PackageError: if the packages cannot be resolved or downloaded, or cannot run in a guest.
            ImageError: if the guest cannot import a module, or the warm-up fails.
            ValueError: if a name, a module or a guest path is malformed, or there is no such base.
            HostError: if this host cannot run guests, or its directories cannot be used.
        """
        from wasm_sandbox.images.building import build  # lazy: resolving packages loads much else

        source = build(
            requirements=requirements,
            base=base,
            packages=packages,
            preload=preload,
            files=files or {},
            warm_up=warm_up,
            name=name,
            installer=installer,
            upgrade=upgrade,
            progress=progress,
        )
        return cls(source, name)

    @classmethod
    @naming_exhaustion()
    def from_wasm(cls, wasm: str | Path, *, stdlib: str | Path | None = None) -> Image:
        """Make an image of another CPython for WASI: any build that is a command, such as ``python.wasm``.

        It is started anew for every run (there is no snapshot of it: some tenths of a second), with the script on its
        argv. Limits, environment, files, output and result are as with the default image. Exceptions are read from
        what the interpreter prints. Tools lack the libraries that are not inside it, which pydantic usually is not.

        Args:
            wasm: path of the module, for WASI preview 1; it is compiled when it is first used, and kept in the cache.
            stdlib: path of the standard library, if it is not inside the module: a directory, seen read-only
                through wasmtime's WASI, or a zip archive, seen in memory.

        Raises:
            ImageError: if a file cannot be read, or is not what it should be.
        """
        from wasm_sandbox.images.other_python import OtherPythonSource  # lazy: loads the engine

        source = OtherPythonSource(Path(wasm).absolute(), Path(stdlib).absolute() if stdlib is not None else None)
        source.check()
        return cls(source)

    @classmethod
    @naming_exhaustion()
    def named(cls, name: str) -> Image:
        """Find the image of a flavour (``science``), or one that is kept on this machine under a name, an id, or the
        first 12 characters of an id.

        The exported image that ``$WASM_SANDBOX_IMAGE`` names is found by its id, too.

        Raises:
            ImageNotFound: if there is none.
            ImageError: if the exported image cannot be used.
            CacheError: if the directory of images cannot be used.
        """
        from wasm_sandbox.images.loading import find_source  # lazy: loads the engine

        source, names = find_source(name)
        return cls(source, name if name in names else next(iter(names), None))


def image_of(image: object) -> Image | None:
    """Image, of itself or of its name; ``None`` for the default image.

    Raises:
        TypeError: if it is neither an `Image` nor a name.
        ImageNotFound: if there is no image of the name.
    """
    if image is None or isinstance(image, Image):
        return image
    if not isinstance(image, str):
        raise TypeError(f"image must be an Image or the name of one, not a {type(image).__name__}")
    return Image.named(image)
