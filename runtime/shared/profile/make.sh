#!/bin/bash
# Make the profile that 50-cpython.sh compiles CPython by: how often each branch is taken in the programs of training/.
# `build.sh --profile` runs this in the build root and keeps what it makes; no build of a guest does. Clang counts in the
# source, so a native build tells what is right for the guest, too, of the same sources at the same place.
. /guest/recipe/shared/stages/common.sh
TRAINING=$RECIPE/profile/training
mkdir -p $WORK/profile/build && cd $WORK/profile
# What counts, for the machine that this runs on. No guest has it in it: so it is not in toolchain.lock.
run install.log env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qy --no-install-recommends "libclang-rt-21-dev=$(dpkg-query -W -f '${Version}' clang-21)"
for wheel in $SOURCES/*.whl wheels/*.whl; do $NATIVE_PYTHON -m zipfile -e "$wheel" site; done

# As the guest is built: modules in the interpreter, no computed jumps.
cd build
run configure.log env CC=clang-21 CFLAGS="-O2 -g0 -fprofile-instr-generate -mllvm -enable-value-profiling" \
    LDFLAGS=-fprofile-instr-generate PKG_CONFIG=/bin/false MODULE_BUILDTYPE=static \
    $CPYTHON/configure --disable-test-modules --without-ensurepip \
    --with-pymalloc --without-mimalloc --without-computed-gotos
run make.log env LLVM_PROFILE_FILE=/dev/null make -j"$JOBS" python pybuilddir.txt

cd ..
for program in $TRAINING/*.py; do
    echo "${program##*/}"
    LLVM_PROFILE_FILE=$PWD/${program##*/}.profraw PYTHONPATH=$PWD/site PYTHONDONTWRITEBYTECODE=1 \
        run training.log build/python "$program"
done
llvm-profdata-21 merge -o cpython.profdata ./*.profraw
llvm-profdata-21 show cpython.profdata
