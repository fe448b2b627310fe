"""A build back-end that builds nothing: lets ``pip download`` save a Rust sdist without running cargo."""

import os
import tomllib


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    with open("pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    with open("Cargo.toml", "rb") as file:
        version = project.get("version") or tomllib.load(file)["package"]["version"]
    name = f"{project['name'].replace('-', '_')}-{version}.dist-info"
    os.makedirs(os.path.join(metadata_directory, name))
    with open(os.path.join(metadata_directory, name, "METADATA"), "w") as file:
        file.write(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n")
    with open(os.path.join(metadata_directory, name, "WHEEL"), "w") as file:
        file.write("Wheel-Version: 1.0\nGenerator: none\nRoot-Is-Purelib: false\nTag: py3-none-any\n")
    return name
