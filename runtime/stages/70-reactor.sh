#!/bin/bash
# Freeze the Python library and link everything into the one module that is the artifact.
. /guest/recipe/stages/common.sh
rm -rf $WORK/reactor $WORK/site && mkdir -p $WORK/reactor $WORK/site && cd $WORK/reactor

for wheel in $SOURCES/*.whl; do $NATIVE_PYTHON -m zipfile -e "$wheel" $WORK/site; done
cp -r $WORK/pydantic-core/python/pydantic_core $WORK/site/
cp $RECIPE/reactor/* .
$NATIVE_PYTHON freeze.py frozen.bin $CPYTHON/Lib $WORK/site $RECIPE/guest

wasi_toolchain
CP=$WORK/cpython
for source in reactor.c seal.c; do
    $CC -std=c11 $OPT -Wall -Wextra -Wno-unused-parameter -I$CPYTHON/Include -I$CP -c $source -o ${source%.c}.o
done
$CC -c frozen.S -o frozen.o
$CC -mexec-model=reactor $OPT -L$PREFIX/lib -o linked.wasm \
    -Wl,-z,stack-size=2097152 -Wl,--stack-first -Wl,--strip-all -Wl,--gc-sections -Wl,--export=__stack_pointer -Wl,--export-table \
    reactor.o seal.o frozen.o $CP/libpython3.13.a $WORK/pydantic-core/target/wasm32-wasip1/release/lib_pydantic_core.a \
    $CP/Modules/expat/libexpat.a $CP/Modules/_decimal/libmpdec/libmpdec.a $CP/Modules/_hacl/libHacl_Hash_SHA2.a \
    -lsqlite3 -lbz2 -llzma -lz -lm -ldl \
    -lwasi-emulated-signal -lwasi-emulated-getpid -lwasi-emulated-process-clocks
# clang's driver has run wasm-opt once; a second pass is worth 2 % of computing speed.
run wasm-opt.log wasm-opt -O3 --all-features --disable-gc --disable-threads linked.wasm -o guest.wasm
ls -l linked.wasm guest.wasm
sha256sum guest.wasm
