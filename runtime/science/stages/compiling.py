"""Compile C and C++ files into objects, with a record of the commands that casts.py reads.

Usage: compiling.py DIRECTORY ARCHIVE COMMAND... -- FILE...
The objects go to DIRECTORY, in whose compile_commands.json and objects.txt they are added, and into ARCHIVE.
"""

import json
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor


def main(directory: str, archive: str, arguments: list[str]) -> None:
    at = arguments.index("--")
    command, files = arguments[:at], arguments[at + 1 :]
    build = pathlib.Path(directory)
    build.mkdir(parents=True, exist_ok=True)
    name = pathlib.Path(archive).stem
    entries = []
    for file in files:
        output = f"{name}/{file.replace('../', '').replace('/', '_')}.o"
        whole = [*command, "-c", os.path.abspath(file), "-o", output]
        entries.append({"directory": directory, "file": os.path.abspath(file), "output": output, "whole": whole})
    (build / name).mkdir(exist_ok=True)

    def compile_one(entry: dict) -> None:
        done = subprocess.run(entry["whole"], cwd=build, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{entry['file']} does not compile:\n{done.stderr[-3000:]}")

    with ThreadPoolExecutor(int(os.environ.get("JOBS", "2"))) as pool:
        list(pool.map(compile_one, entries))
    pathlib.Path(archive).unlink(missing_ok=True)
    objects = [entry["output"] for entry in entries]
    subprocess.run(["llvm-ar-21", "rcsD", archive, *objects], cwd=build, check=True)
    commands = build / "compile_commands.json"
    recorded = json.loads(commands.read_text()) if commands.exists() else []
    recorded += [{**entry, "command": subprocess.list2cmdline(entry.pop("whole"))} for entry in entries]
    commands.write_text(json.dumps(recorded))
    with (build / "objects.txt").open("a") as listed:
        listed.writelines(f"{output}\n" for output in objects)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
