#!/bin/bash
# orjson: a static library of Rust, with the crates that its archive carries, and the Python file.
# uses: flavours/science/sources/orjson-* recipe/science/patches/orjson-* recipe/science/stages/compiling.* recipe/science/stages/hide.py
. /guest/recipe/science/stages/common.sh
. $OWN/stages/compiling.sh
SOURCE=$OWN_WORK/orjson BUILD=$OWN_WORK/orjson-build LIBRARY=$OWN_WORK/lib/orjson.orjson.a
rm -rf $OWN_WORK/site/orjson && mkdir -p $OWN_WORK/site/orjson
forget orjson
unpack_from $OWN_WORK/sources/orjson-3.13.0.tar.gz $SOURCE
apply orjson $SOURCE

cd $SOURCE
sed -i 's/^crate-type = .*/crate-type = ["staticlib"]/' Cargo.toml
# Its C code is compiled as everything else here: the target that Rust names has no headers in the build root.
export CC_wasm32_wasip1=clang-21 AR_wasm32_wasip1=llvm-ar-21 CFLAGS_wasm32_wasip1="--target=wasm32-wasi $OPT -msimd128"
export PYO3_CONFIG_FILE=$WORK/pyo3.config CARGO_HOME=$WORK/cargo-home
# Paths of this machine must not reach the panic messages.
export RUSTFLAGS="-C target-feature=+simd128 --remap-path-prefix=$SOURCE=/orjson"
run build.log cargo build --release --offline --locked --target wasm32-wasip1 -j"$JOBS"
# pydantic_core is another static library of Rust: what is defined here must not meet what is defined there.
rm -rf $BUILD && mkdir $BUILD && cd $BUILD
llvm-ar-21 x $SOURCE/target/wasm32-wasip1/release/liborjson.a
$NATIVE_PYTHON $OWN/stages/hide.py orjson-*.rcgu.o PyInit_orjson
rm -f $LIBRARY
llvm-ar-21 rcsD $LIBRARY orjson-*.rcgu.o *-yyjson.o
cd $SOURCE
echo orjson.orjson >> $OWN_WORK/modules
echo $LIBRARY >> $OWN_WORK/link
cp pysrc/orjson/__init__.py $OWN_WORK/site/orjson/
