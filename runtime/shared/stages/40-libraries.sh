#!/bin/bash
# zlib, bzip2, liblzma and SQLite as static libraries for wasm32-wasip1.
# uses: recipe/shared/patches/sqlite-* sources/zlib_* sources/bzip2_* sources/xz-utils_* sources/sqlite3_*
. /guest/recipe/shared/stages/common.sh
rm -rf $PREFIX && mkdir -p $PREFIX/lib $PREFIX/include

# Upstream's amalgamation is generated natively, before the cross toolchain is set.
unpack sqlite3_3.53.4.orig.tar.xz $WORK/sqlite
for p in $RECIPE/patches/sqlite-*.patch; do patch -d $WORK/sqlite -p1 < "$p"; done
cd $WORK/sqlite
run configure.log env CC=clang-21 ./configure
run make.log make sqlite3.c

wasi_toolchain

# archive LIBRARY SOURCE... : compile C files in the current directory into one static library
archive() {
    local library=$1; shift
    local objects=()
    for source in "$@"; do
        $CC $OPT ${DEFINES:-} -c "$source" -o "${source%.c}.o"
        objects+=("${source%.c}.o")
    done
    $AR rcsD "$PREFIX/lib/$library" "${objects[@]}"
}

unpack "zlib_1.3.dfsg+really1.3.2.orig.tar.gz" $WORK/zlib
cd $WORK/zlib
DEFINES="-DHAVE_UNISTD_H=1" archive libz.a \
    adler32.c crc32.c deflate.c inflate.c inffast.c inftrees.c trees.c zutil.c compress.c uncompr.c infback.c
cp zlib.h zconf.h $PREFIX/include/

unpack bzip2_1.0.8.orig.tar.gz $WORK/bzip2
cd $WORK/bzip2
archive libbz2.a blocksort.c huffman.c crctable.c randtable.c compress.c decompress.c bzlib.c
cp bzlib.h $PREFIX/include/

unpack xz-utils_5.8.4.orig.tar.xz $WORK/xz
cd $WORK/xz
run configure.log env CFLAGS="$OPT" ./configure --host=wasm32-wasi --prefix=$PREFIX \
    --enable-threads=no --disable-shared --disable-xz --disable-xzdec --disable-lzmadec \
    --disable-lzmainfo --disable-scripts --disable-doc --disable-nls --disable-assembler
run make.log make -j"$JOBS" -C src/liblzma install

cd $WORK/sqlite
DEFINES="-DSQLITE_THREADSAFE=0 -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_OMIT_WAL -DSQLITE_TEMP_STORE=3
    -DSQLITE_ENABLE_MATH_FUNCTIONS -DSQLITE_ENABLE_FTS5 -DSQLITE_ENABLE_RTREE -DSQLITE_ENABLE_COLUMN_METADATA
    -DSQLITE_DQS=0 -DHAVE_USLEEP=1 -DSQLITE_MAX_MMAP_SIZE=0 -D_WASI_EMULATED_GETPID -D_WASI_EMULATED_MMAN" \
    archive libsqlite3.a sqlite3.c
cp sqlite3.h src/sqlite3ext.h $PREFIX/include/
ls -l $PREFIX/lib/*.a
