#!/bin/bash
# Freeze the Python library and link everything into the one module that is the flavour's artifact.
# uses: recipe/shared/reactor/* recipe/shared/stages/*.py recipe/guest/* sources/*.whl
. /guest/recipe/shared/stages/common.sh
# What CPython's limits of recursion need (patches/cpython-c-recursion-limit.patch): 15.7 MiB for a source of 9,997 dots.
SHADOW_STACK=$((16 << 20))
OUT=$OWN_WORK/reactor
rm -rf $OUT && mkdir -p $OUT/site && cd $OUT

for wheel in $SOURCES/*.whl; do $NATIVE_PYTHON -m zipfile -e "$wheel" site; done
cp -r $WORK/pydantic-core/python/pydantic_core site/
[ ! -e $OWN_WORK/site ] || cp -r $OWN_WORK/site/. site/
cp $RECIPE/reactor/* .
$NATIVE_PYTHON freeze.py frozen.bin $CPYTHON/Lib site $WORK/recipe/guest

# What a flavour's stages leave for this one: the compiled modules, and what to link.
modules=(pydantic_core._pydantic_core) arguments=()
[ ! -e $OWN_WORK/modules ] || mapfile -t -O 1 modules < $OWN_WORK/modules
[ ! -e $OWN_WORK/link ] || mapfile -t arguments < $OWN_WORK/link
{
    echo '#include <Python.h>'
    for module in "${modules[@]}"; do echo "extern PyObject *PyInit_${module##*.}(void);"; done
    echo 'struct _inittab sandbox_modules[] = {'
    for module in "${modules[@]}"; do echo "    {\"$module\", PyInit_${module##*.}},"; done
    echo '    {0}};'
} > modules.c

wasi_toolchain
CP=$WORK/cpython
for source in *.c; do
    $CC -std=c11 $OPT -Wall -Wextra -Wno-unused-parameter -I$CPYTHON/Include -I$CP -c $source -o ${source%.c}.o
done
$CC -c frozen.S -o frozen.o
linked=(
    reactor.o seal.o strftime.o zone.o modules.o frozen.o "${arguments[@]}"
    $WORK/pydantic-core/target/wasm32-wasip1/release/lib_pydantic_core.a
)
cpython=(
    $CP/libpython3.13.a
    $CP/Modules/expat/libexpat.a $CP/Modules/_decimal/libmpdec/libmpdec.a $CP/Modules/_hacl/libHacl_Hash_SHA2.a
)
# link MODULE OPTION...: a wrong declaration is only a warning for the linker, and a trap when it is called.
link() {
    $CC -mexec-model=reactor $OPT -L$PREFIX/lib -o "$@" --no-wasm-opt -Wl,--fatal-warnings -Wl,-z,stack-size=$SHADOW_STACK \
        -Wl,--stack-first -Wl,--gc-sections -Wl,--export=__stack_pointer -Wl,--export-table \
        "${linked[@]}" "${cpython[@]}" -lsqlite3 -lbz2 -llzma -lz -lm -ldl \
        -lwasi-emulated-signal -lwasi-emulated-getpid -lwasi-emulated-process-clocks
}
$NATIVE_PYTHON $RECIPE/stages/duplicates.py "${linked[@]}" "${cpython[@]}"
# With a base of the function table that nothing else in the data is. CPython is optimised as a whole here, once.
link examined.wasm -Wl,--table-base=$((0x40000000)) -Wl,--save-temps
$NATIVE_PYTHON $RECIPE/stages/signatures.py examined.wasm
cpython=(examined.wasm.lto.o $CP/Python/ceval.o)
link linked.wasm -Wl,--strip-all -Wl,-Map=linked.map
# Code that throws or jumps, for the archives that a flavour lists.
[ ! -e $OWN_WORK/throwing ] || $NATIVE_PYTHON $RECIPE/stages/exceptions.py linked.wasm linked.map $OWN_WORK/throwing linked.wasm
# One pass: a second one no longer gains anything (benchmarks/NOTES.md).
run wasm-opt.log wasm-opt -O3 --all-features --disable-gc --disable-threads linked.wasm -o guest.wasm
ls -l linked.wasm guest.wasm
sha256sum guest.wasm
