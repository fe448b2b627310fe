"""`Image`: what a guest has in it before a tool runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wasm_sandbox.engine import ImageSource


@dataclass(frozen=True)
class Image:
    """A guest to run tools in: the default one with your packages, or another one.

    Hand it to ``run_tool(..., image=...)``, `WasmToolSandbox` or `SandboxConfig`; a named one by its name, too.

    Attributes:
        id: its identity: what was made of the same inputs has the same one.
        name: the name under which it is kept on this machine, if it has one.
    """

    source: ImageSource = field(repr=False)
    """Where the engine loads it from."""
    name: str | None = None

    @property
    def id(self) -> str:
        return self.source.id

    @property
    def distributions(self) -> Mapping[str, str]:
        """What was installed into it, besides what every guest has: name -> version."""
        return self.source.distributions

    @property
    def has_own_guest(self) -> bool:
        """Whether it runs our own guest, and not another CPython."""
        from wasm_sandbox.engine import StartKind  # lazy: loads the engine

        return self.source.start is StartKind.REACTOR

    @property
    def reference(self) -> str:
        """What finds it again on this machine: its name, else its id."""
        return self.name or self.id

    @classmethod
    def build(
        cls,
        requirements: Sequence[str] = (),
        *,
        packages: Sequence[str | Path] = (),
        preload: Sequence[str] | None = None,
        files: Mapping[str, str | Path | bytes] | None = None,
        warm_up: str = "",
        name: str | None = None,
        installer: str | None = None,
        upgrade: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> Image:
        """Make an image: the default one with packages in its memory, imported, before any run.

        The packages are resolved and downloaded by pip or uv, as wheels of pure Python; nothing of them is executed
        on this host. They are imported in a guest, once. What the same call made before on this machine is taken
        again, without any network.

        Args:
            requirements: what to install, as pip takes it: names with versions, extras and markers.
            packages: local ones: directories with an ``__init__.py``, modules (``.py``), wheels (``.whl``).
            preload: modules to import, in order; by default the top-level ones of what ``requirements`` and
                ``packages`` name (and not of what those need in turn).
            files: files that every run finds: absolute guest path -> contents, or path of a file on this host.
            warm_up: Python to run in the guest after that: what it leaves in memory, every run finds.
            name: keeps the image under this name; another image of that name loses it.
            installer: ``"pip"`` or ``"uv"``; by default pip of this Python, else uv.
            upgrade: whether to resolve anew what was resolved before.
            progress: called with a few words at the start of every slow step.

        Raises:
            PackageError: the packages cannot be had, or cannot run in a guest.
            ImageError: the guest cannot import a module, or the warm-up fails.
            ValueError: a name, a module or a guest path is malformed.
            HostError: this host cannot run guests, or its directories cannot be used.
        """
        from wasm_sandbox.images.building import build  # lazy: resolving packages loads much else

        source = build(
            requirements=requirements,
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
    def from_wasm(cls, wasm: str | Path, *, stdlib: str | Path | None = None) -> Image:
        """An image of another CPython for WASI: any build that is a command, such as ``python.wasm``.

        It is started anew for every run (there is no snapshot of it: some tenths of a second), with the script on its
        argv. Limits, environment, files, output and result are as with the default image. Exceptions are read from
        what the interpreter prints. What is not inside it, pydantic usually, tools do not have.

        Args:
            wasm: the module, for WASI preview 1; it is compiled when it is first used, and kept in the cache.
            stdlib: its standard library, if it is not inside the module: a directory, which guests see read-only
                through wasmtime's WASI, or a zip archive, which they see in memory.

        Raises:
            ImageError: a file cannot be read, or is not what it should be.
        """
        from wasm_sandbox.images.other_python import OtherPythonSource  # lazy: loads the engine

        source = OtherPythonSource(Path(wasm).absolute(), Path(stdlib).absolute() if stdlib is not None else None)
        source.check()
        return cls(source)

    @classmethod
    def named(cls, name: str) -> Image:
        """The image that is kept on this machine under a name; or under an id, or the first 12 characters of one.

        Raises:
            ImageNotFound: there is none.
            CacheError: the directory of images cannot be used.
        """
        from wasm_sandbox.images.loading import BuiltSource, identity  # lazy: loads the engine
        from wasm_sandbox.images.store import ImageStore  # lazy: only where images are kept

        store = ImageStore()
        kept = store.kept(name, identity)
        return cls(BuiltSource(kept.recipe, store), name if name in kept.names else next(iter(kept.names), None))


def image_of(image: object) -> Image | None:
    """An image given as one or by its name; ``None`` is the default image."""
    if image is None or isinstance(image, Image):
        return image
    if not isinstance(image, str):
        raise TypeError(f"image must be an Image or the name of one, not a {type(image).__name__}")
    return Image.named(image)
