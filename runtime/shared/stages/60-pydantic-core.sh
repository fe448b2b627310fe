#!/bin/bash
# pydantic_core as a static library for wasm32-wasip1, with the crates that the build root's packages carry.
# uses: sources/pydantic_core-*.tar.gz recipe/shared/stages/relax_crates.py
. /guest/recipe/shared/stages/common.sh
unpack pydantic_core-2.50.1.tar.gz $WORK/pydantic-core
cd $WORK/pydantic-core
rm -f Cargo.lock rust-toolchain*
$NATIVE_PYTHON $RECIPE/stages/relax_crates.py Cargo.toml /usr/share/cargo/registry
mkdir -p .cargo
cat > .cargo/config.toml <<'C'
[source.crates-io]
replace-with = "packaged"
[source.packaged]
directory = "/usr/share/cargo/registry"
[net]
offline = true
C
cat > $WORK/pyo3.config <<'C'
implementation=CPython
version=3.13
shared=false
abi3=false
pointer_width=32
build_flags=
suppress_build_script_link_lines=true
C
export PYO3_CONFIG_FILE=$WORK/pyo3.config CARGO_HOME=$WORK/cargo-home
# Paths of this machine must not reach the panic messages: the artifact is reproducible.
export RUSTFLAGS="--remap-path-prefix=$WORK=/guest --remap-path-prefix=/usr/share/cargo/registry=/crates"
run build.log cargo build --release --offline --target wasm32-wasip1 -j"$JOBS"
ls -l target/wasm32-wasip1/release/lib_pydantic_core.a
