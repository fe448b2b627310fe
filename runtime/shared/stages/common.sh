# Shared settings of the build stages; sourced inside the build root, never run by itself.
set -euo pipefail

JOBS=${JOBS:-2}
WORK=/guest                       # everything the stages read and write, inside the build root
SOURCES=$WORK/sources             # verified archives, put there by fetch.py
RECIPE=$WORK/recipe/shared        # a copy of what all flavours share
OWN=$WORK/recipe/$FLAVOUR         # a copy of what the flavour adds
OWN_WORK=$WORK/flavours/$FLAVOUR  # and what is made of it
PREFIX=$WORK/prefix               # static libraries and headers for wasm32-wasip1
NATIVE_PYTHON=$WORK/native/python # runs while cross-compiling; same version as the guest
CPYTHON=$WORK/Python-3.13.15
OPT="-O3 -g0"

# Every byte of the output must come from the sources: no clock, locale or hash seed.
export LC_ALL=C.UTF-8 TZ=UTC SOURCE_DATE_EPOCH=1700000000 PYTHONHASHSEED=0

# The cross toolchain, for configure scripts and plain compiler calls.
wasi_toolchain() {
    export CC="clang-21 --target=wasm32-wasi" CPP="clang-21 --target=wasm32-wasi -E"
    export AR=llvm-ar-21 RANLIB=llvm-ranlib-21 NM=llvm-nm-21 LD=wasm-ld-21 READELF=llvm-readelf-21
}

# unpack ARCHIVE DIRECTORY: a fresh tree, without the archive's own top directory.
unpack() {
    rm -rf "$2"; mkdir -p "$2"
    tar xf "$SOURCES/$1" -C "$2" --strip-components=1
}

# run LOG COMMAND...: keep a long log out of the way, show its end when the command fails.
run() {
    local log=$1; shift
    "$@" > "$log" 2>&1 || { echo "failed: $*" >&2; tail -30 "$log" >&2; exit 1; }
}
