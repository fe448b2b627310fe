#!/bin/bash
# numpy: its compiled modules as archives, and its Python files.
# uses: flavours/science/sources/numpy-* recipe/science/patches/numpy-* recipe/science/meson/*.ini recipe/science/meson/bin/* recipe/science/cxx/*
. /guest/recipe/science/stages/common.sh
SOURCE=$OWN_WORK/numpy BUILD=$OWN_WORK/numpy-build
rm -rf $BUILD $OWN_WORK/{lib,site,modules,link,throwing} && mkdir -p $OWN_WORK/{lib,site}
unpack_from $OWN_WORK/sources/numpy-2.5.5.tar.gz $SOURCE
apply numpy $SOURCE

cd $SOURCE
run $OWN_WORK/numpy-configure.log numpy-meson setup $BUILD --cross-file $OWN/meson/numpy.ini --buildtype=plain -Db_ndebug=true \
    -Dallow-noblas=true -Dblas=none -Dlapack=none -Ddisable-threading=true -Ddisable-svml=true
compile $BUILD

for name in _core._multiarray_umath linalg._umath_linalg linalg.lapack_lite fft._pocketfft_umath \
    random._bounded_integers random._common random._mt19937 random._philox random._pcg64 random._sfc64 \
    random.bit_generator random._generator random.mtrand; do
    module numpy.$name $BUILD/numpy/${name/.//}$SUFFIX
done
ls $BUILD/numpy/_core/lib*.a $BUILD/numpy/random/lib*.a | grep -v /lib_simd >> $OWN_WORK/link
clang++-21 --target=wasm32-wasi $OPT -std=c++17 -fwasm-exceptions -mllvm -wasm-use-legacy-eh=false -Wall -Wextra \
    -c $OWN/cxx/exceptions.cpp -o $OWN_WORK/lib/exceptions.o
printf '%s\n' $OWN_WORK/lib/exceptions.o -lc++ -lc++abi -lsetjmp -lc-printscan-long-double >> $OWN_WORK/link
printf '%s\n' $OWN_WORK/lib/exceptions.o /usr/lib/wasm32-wasi/lib{c++,c++abi,setjmp}.a > $OWN_WORK/throwing

cd $BUILD
run install.log numpy-meson install --no-rebuild --tags python-runtime --destdir $BUILD/installed
cp -r $BUILD/installed/usr/local/lib/python3.13/site-packages/numpy $OWN_WORK/site/
find $OWN_WORK/site/numpy -name '*.so' -delete
