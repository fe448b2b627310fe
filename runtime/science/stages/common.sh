# Shared settings of this flavour's stages; sourced, never run by itself.
. /guest/recipe/shared/stages/common.sh
TOOLS=$OWN_WORK/build-tools     # Python packages and programs that only the build needs
export PATH=$OWN/meson/bin:$TOOLS/bin:$PATH TOOLS OWN_WORK CPYTHON
SUFFIX=.cpython-313-wasm32-wasi.so.p # of meson's directories with the objects of an extension module

# unpack_from ARCHIVE DIRECTORY: as unpack, of this flavour's sources.
unpack_from() {
    rm -rf "$2" && mkdir -p "$2"
    tar xf "$1" -C "$2" --strip-components=1
}

# apply NAME DIRECTORY: the patches of one package.
apply() {
    local patch
    for patch in $OWN/patches/$1-*.patch; do patch --silent -d "$2" -p1 < "$patch"; done
}

# compile BUILD: objects and static libraries of a meson build. No target is linked: a module of WebAssembly that is
# loaded by another one is not what is made here.
compile() {
    cd "$1"
    ninja -t targets all | grep -E '\.(o|a): ' | cut -d: -f1 | grep -v '_simd' > objects.txt
    run compile.log ninja -j"$JOBS" $(cat objects.txt)
}

# module DOTTED DIRECTORY: one compiled module of the guest, of the objects in a directory.
module() {
    llvm-ar-21 rcsD $OWN_WORK/lib/$1.a "$2"/*.o
    echo "$1" >> $OWN_WORK/modules
    echo "$OWN_WORK/lib/$1.a" >> $OWN_WORK/link
}
