# For packages that are compiled without a build system of theirs; sourced, after common.sh.
FLAGS="$OPT -msimd128 -fno-strict-aliasing -D_WASI_EMULATED_SIGNAL -D_WASI_EMULATED_PROCESS_CLOCKS -D_WASI_EMULATED_GETPID"
FLAGS+=" -Wno-everything -fvisibility=hidden -I$PREFIX/include -I$CPYTHON/Include -I$WORK/cpython"
C="clang-21 --target=wasm32-wasi $FLAGS"
CXX="clang++-21 --target=wasm32-wasi -std=c++17 $FLAGS"
JUMPS="-mexception-handling -mllvm -wasm-enable-sjlj -mllvm -wasm-use-legacy-eh=false" # for who calls setjmp or longjmp
THROWS="-fwasm-exceptions $JUMPS"

# archive NAME COMMAND... -- FILE...: objects of C or C++ files, in $BUILD, as a static library that is linked.
archive() {
    $NATIVE_PYTHON $OWN/stages/compiling.py $BUILD $OWN_WORK/lib/$1.a "${@:2}"
    echo "$OWN_WORK/lib/$1.a" >> $OWN_WORK/link
}

# compiled_module DOTTED COMMAND... -- FILE...: the same, of a compiled module of the guest.
compiled_module() {
    echo "$1" >> $OWN_WORK/modules
    archive "$@"
}

# throwing NAME...: archives whose functions exceptions and long jumps may leave. They are linked before the others: of a
# function that several have, one of a template, the linker takes the first.
throwing() {
    local name
    for name; do
        sed -i "\\|/lib/$name.a\$|d" $OWN_WORK/link
        sed -i "1i $OWN_WORK/lib/$name.a" $OWN_WORK/link
        echo "$OWN_WORK/lib/$name.a" >> $OWN_WORK/throwing
    done
}

# forget NAME...: what a stage that is run anew has left of these packages in the lists of modules and archives.
forget() {
    local name
    for name; do
        sed -i "/^$name[.]/d" $OWN_WORK/modules
        sed -i "/\\/lib\\/$name[.-]/d" $OWN_WORK/link $OWN_WORK/throwing
    done
}
