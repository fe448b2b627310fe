"""The engine room: the only code that imports wasmtime. This is its only door; the names load on first use.

May import: values, tool, script, decode.
Imported by: images, sandbox, workers, bench, cli.doctor, cli.bench.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.engine.binding.configuration import Progress as Progress
    from wasm_sandbox.engine.binding.version import wasmtime_version as wasmtime_version
    from wasm_sandbox.engine.compiled.artifact import PLAIN as PLAIN
    from wasm_sandbox.engine.compiled.artifact import Artifact as Artifact
    from wasm_sandbox.engine.compiled.artifact import find_artifact as find_artifact
    from wasm_sandbox.engine.compiled.build import Build as Build
    from wasm_sandbox.engine.compiled.build import key_prefix as key_prefix
    from wasm_sandbox.engine.compiled.built_in import BUILT_IN_IMAGE as BUILT_IN_IMAGE
    from wasm_sandbox.engine.compiled.built_in import FLAVOUR_IMAGES as FLAVOUR_IMAGES
    from wasm_sandbox.engine.compiled.built_in import BuiltInImage as BuiltInImage
    from wasm_sandbox.engine.compiled.cache import CachedImage as CachedImage
    from wasm_sandbox.engine.compiled.cache import ImageCache as ImageCache
    from wasm_sandbox.engine.compiled.compiling import check_compiler as check_compiler
    from wasm_sandbox.engine.compiled.compiling import compile_for as compile_for
    from wasm_sandbox.engine.compiled.identity import SNAPSHOT_FORMAT as SNAPSHOT_FORMAT
    from wasm_sandbox.engine.compiled.identity import image_id as image_id
    from wasm_sandbox.engine.compiled.identity import min_memory_bytes as min_memory_bytes
    from wasm_sandbox.engine.compiled.loaded import ImageLoader as ImageLoader
    from wasm_sandbox.engine.compiled.loaded import ImageSource as ImageSource
    from wasm_sandbox.engine.compiled.loaded import LoadedImage as LoadedImage
    from wasm_sandbox.engine.compiled.packages import installer as installer
    from wasm_sandbox.engine.compiled.packages import package_steps as package_steps
    from wasm_sandbox.engine.compiled.preparation import prepare_snapshot as prepare_snapshot
    from wasm_sandbox.engine.compiled.steps import Step as Step
    from wasm_sandbox.engine.compiled.warm_up import live_script as live_script
    from wasm_sandbox.engine.engine import GuestEngine as GuestEngine
    from wasm_sandbox.engine.engine import leaves_guests as leaves_guests
    from wasm_sandbox.engine.engine import process_engine as process_engine
    from wasm_sandbox.engine.engine import usual_builds as usual_builds
    from wasm_sandbox.engine.memory.address_space import PAGEMAP_SCAN as PAGEMAP_SCAN
    from wasm_sandbox.engine.module.metering import Metering as Metering
    from wasm_sandbox.engine.run.kept import CallOfKept as CallOfKept
    from wasm_sandbox.engine.run.kept import KeptGuest as KeptGuest
    from wasm_sandbox.engine.run.point import Checkpoint as Checkpoint
    from wasm_sandbox.engine.run.point import Count as Count
    from wasm_sandbox.engine.run.point import PointHead as PointHead
    from wasm_sandbox.engine.run.point import Rest as Rest
    from wasm_sandbox.engine.run.point import cut as cut
    from wasm_sandbox.engine.run.point import damaged as damaged
    from wasm_sandbox.engine.run.point import head_of as head_of
    from wasm_sandbox.engine.start.command import Command as Command
    from wasm_sandbox.engine.start.kind import StartKind as StartKind
    from wasm_sandbox.engine.threads.green import check_processes as check_processes
    from wasm_sandbox.engine.threads.guest_threads import GuestThreads as GuestThreads
    from wasm_sandbox.engine.threads.guest_threads import on_guest_thread as on_guest_thread
    from wasm_sandbox.engine.threads.guest_threads import wait_for as wait_for
    from wasm_sandbox.engine.threads.watchdog import Watchdog as Watchdog
    from wasm_sandbox.engine.world.surroundings import NONE_ELAPSED as NONE_ELAPSED
    from wasm_sandbox.engine.world.surroundings import Elapsed as Elapsed
    from wasm_sandbox.engine.world.surroundings import FixedSurroundings as FixedSurroundings
    from wasm_sandbox.engine.world.surroundings import LiveSurroundings as LiveSurroundings
    from wasm_sandbox.engine.world.surroundings import surroundings_for as surroundings_for

_HOMES = {
    "Artifact": "compiled.artifact",
    "Build": "compiled.build",
    "key_prefix": "compiled.build",
    "CallOfKept": "run.kept",
    "Checkpoint": "run.point",
    "Count": "run.point",
    "PointHead": "run.point",
    "Rest": "run.point",
    "cut": "run.point",
    "damaged": "run.point",
    "head_of": "run.point",
    "KeptGuest": "run.kept",
    "CachedImage": "compiled.cache",
    "Command": "start.command",
    "Elapsed": "world.surroundings",
    "FixedSurroundings": "world.surroundings",
    "GuestEngine": "engine",
    "GuestThreads": "threads.guest_threads",
    "ImageCache": "compiled.cache",
    "ImageLoader": "compiled.loaded",
    "ImageSource": "compiled.loaded",
    "LiveSurroundings": "world.surroundings",
    "LoadedImage": "compiled.loaded",
    "Metering": "module.metering",
    "NONE_ELAPSED": "world.surroundings",
    "PAGEMAP_SCAN": "memory.address_space",
    "BUILT_IN_IMAGE": "compiled.built_in",
    "BuiltInImage": "compiled.built_in",
    "PLAIN": "compiled.artifact",
    "FLAVOUR_IMAGES": "compiled.built_in",
    "Progress": "binding.configuration",
    "SNAPSHOT_FORMAT": "compiled.identity",
    "StartKind": "start.kind",
    "Step": "compiled.steps",
    "Watchdog": "threads.watchdog",
    "check_processes": "threads.green",
    "check_compiler": "compiled.compiling",
    "compile_for": "compiled.compiling",
    "find_artifact": "compiled.artifact",
    "image_id": "compiled.identity",
    "installer": "compiled.packages",
    "leaves_guests": "engine",
    "live_script": "compiled.warm_up",
    "min_memory_bytes": "compiled.identity",
    "on_guest_thread": "threads.guest_threads",
    "package_steps": "compiled.packages",
    "prepare_snapshot": "compiled.preparation",
    "process_engine": "engine",
    "surroundings_for": "world.surroundings",
    "usual_builds": "engine",
    "wait_for": "threads.guest_threads",
    "wasmtime_version": "binding.version",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)
