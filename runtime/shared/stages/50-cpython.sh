#!/bin/bash
# libpython3.13.a and its bundled C libraries for wasm32-wasip1.
# uses: recipe/shared/stages/config.site
. /guest/recipe/shared/stages/common.sh
wasi_toolchain
rm -rf $WORK/cpython && mkdir $WORK/cpython && cd $WORK/cpython
# CONFIG_SITE takes one file: a second one is ignored without a word.
cat $CPYTHON/Tools/wasm/config.site-wasm32-wasi $RECIPE/stages/config.site > config.site
# CPython asks for -fno-strict-overflow, which since clang 20 also lets pointers wrap around: then no offset of
# a field can be part of a load or store, and each access is an addition more.
run configure.log env CONFIG_SITE=$PWD/config.site PKG_CONFIG=/bin/false HOSTRUNNER=/bin/true \
    CFLAGS="$OPT -fno-wrapv-pointer -fno-strict-aliasing -Wno-int-conversion -Wno-everything" \
    CPPFLAGS="-I$PREFIX/include" LDFLAGS="-L$PREFIX/lib" \
    ZLIB_CFLAGS="-I$PREFIX/include" ZLIB_LIBS="-L$PREFIX/lib -lz" \
    BZIP2_CFLAGS="-I$PREFIX/include" BZIP2_LIBS="-L$PREFIX/lib -lbz2" \
    LIBLZMA_CFLAGS="-I$PREFIX/include" LIBLZMA_LIBS="-L$PREFIX/lib -llzma" \
    LIBSQLITE3_CFLAGS="-I$PREFIX/include" LIBSQLITE3_LIBS="-L$PREFIX/lib -lsqlite3 -lm" \
    $CPYTHON/configure --host=wasm32-unknown-wasip1 --build=x86_64-pc-linux-gnu \
    --with-build-python=$NATIVE_PYTHON --with-suffix=.wasm --prefix=/usr/local \
    --disable-test-modules --without-ensurepip --with-pymalloc --without-mimalloc --without-computed-gotos
run make.log make -j"$JOBS" libpython3.13.a pybuilddir.txt # the latter for builds of extension modules
ls -l libpython3.13.a
