#!/bin/bash
# Compile the programs of tests/runtime/test_cxx.py with the toolchain of a build root: build.sh ROOT, as root.
set -euo pipefail
cd "$(dirname "$0")"
ROOT=$1 PLACE=/tmp/throwing
rm -rf "$ROOT$PLACE" && mkdir "$ROOT$PLACE"
cp ../../../runtime/science/cxx/exceptions.cpp ./*.c ./*.cpp "$ROOT$PLACE/"
chroot "$ROOT" bash -euo pipefail -c "cd $PLACE
    FLAGS='--target=wasm32-wasi -O2 -g0'
    JUMPS='-mexception-handling -mllvm -wasm-enable-sjlj -mllvm -wasm-use-legacy-eh=false'
    for part in exceptions cases; do clang++-21 \$FLAGS -std=c++17 -fwasm-exceptions \$JUMPS -c \$part.cpp; done
    clang-21 \$FLAGS \$JUMPS -c jumps.c
    clang-21 \$FLAGS -c plain.c
    clang-21 --target=wasm32-wasi -mexec-model=reactor --no-wasm-opt -o cases.wasm {exceptions,cases,jumps,plain}.o \
        -lc++ -lc++abi -lsetjmp -Wl,--strip-all,--stack-first,--export-table,--fatal-warnings,-Map=cases.map"
for file in cases.wasm cases.map; do xz -9 -c "$ROOT$PLACE/$file" > $file.xz; done
sha256sum ../../../runtime/science/cxx/exceptions.cpp ./*.c ./*.cpp > made_from
