#!/bin/bash
# Freeze the Python library and link everything into the one module that is the artifact.
. /guest/recipe/stages/common.sh
SHADOW_STACK=$((16 << 20)) # what CPython's limits of recursion need (patches/cpython-c-recursion-limit.patch)
rm -rf $WORK/reactor $WORK/site && mkdir -p $WORK/reactor $WORK/site && cd $WORK/reactor

for wheel in $SOURCES/*.whl; do $NATIVE_PYTHON -m zipfile -e "$wheel" $WORK/site; done
cp -r $WORK/pydantic-core/python/pydantic_core $WORK/site/
cp $RECIPE/reactor/* .
$NATIVE_PYTHON freeze.py frozen.bin $CPYTHON/Lib $WORK/site $RECIPE/guest

wasi_toolchain
CP=$WORK/cpython
for source in *.c; do
    $CC -std=c11 $OPT -Wall -Wextra -Wno-unused-parameter -I$CPYTHON/Include -I$CP -c $source -o ${source%.c}.o
done
$CC -c frozen.S -o frozen.o
# link MODULE OPTION...: a wrong declaration is only a warning for the linker, and a trap when it is called.
link() {
    $CC -mexec-model=reactor $OPT -L$PREFIX/lib -o "$@" --no-wasm-opt -Wl,--fatal-warnings -Wl,-z,stack-size=$SHADOW_STACK \
        -Wl,--stack-first -Wl,--gc-sections -Wl,--export=__stack_pointer -Wl,--export-table \
        reactor.o seal.o strftime.o zone.o frozen.o $CP/libpython3.13.a \
        $WORK/pydantic-core/target/wasm32-wasip1/release/lib_pydantic_core.a \
        $CP/Modules/expat/libexpat.a $CP/Modules/_decimal/libmpdec/libmpdec.a $CP/Modules/_hacl/libHacl_Hash_SHA2.a \
        -lsqlite3 -lbz2 -llzma -lz -lm -ldl \
        -lwasi-emulated-signal -lwasi-emulated-getpid -lwasi-emulated-process-clocks
}
# With a base of the function table that nothing else in the data is.
link examined.wasm -Wl,--table-base=$((0x40000000))
$NATIVE_PYTHON $RECIPE/stages/signatures.py examined.wasm
link linked.wasm -Wl,--strip-all
# Two passes: the second is worth 2 % of computing speed.
run wasm-opt.log wasm-opt -O3 --all-features --disable-gc --disable-threads linked.wasm -o once.wasm
run wasm-opt.log wasm-opt -O3 --all-features --disable-gc --disable-threads once.wasm -o guest.wasm
ls -l linked.wasm guest.wasm
sha256sum guest.wasm
