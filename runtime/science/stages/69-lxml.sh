#!/bin/bash
# lxml with libxml2 and libxslt: its compiled modules, and the Python files.
# uses: flavours/science/sources/lxml-* flavours/science/sources/libxml2_* flavours/science/sources/libxslt_* recipe/science/patches/lxml-* recipe/science/patches/libxml2-* recipe/science/patches/libxslt-* recipe/science/stages/compiling.* recipe/science/stages/casts.* recipe/science/stages/schematron_data.py
. /guest/recipe/science/stages/common.sh
. $OWN/stages/compiling.sh
SOURCE=$OWN_WORK/lxml BUILD=$OWN_WORK/lxml-build XML=$OWN_WORK/libxml2 XSLT=$OWN_WORK/libxslt SITE=$OWN_WORK/site
rm -rf $BUILD $SITE/lxml && mkdir -p $BUILD
forget lxml libxml2 libxslt libexslt gzfiles
unpack_from $OWN_WORK/sources/lxml-6.1.3.tar.gz $SOURCE
unpack_from $OWN_WORK/sources/libxml2_2.15.4+dfsg.orig.tar.xz $XML
unpack_from $OWN_WORK/sources/libxslt_1.1.45.orig.tar.xz $XSLT
apply lxml $SOURCE
apply libxml2 $XML
apply libxslt $XSLT
C+=" -Werror=implicit-function-declaration" # what is not declared would be called by a type of its own

# zlib's functions for files, which nothing else needs.
cd $WORK/zlib
archive gzfiles $C -DHAVE_UNISTD_H=1 -- gz{close,lib,read,write}.c

# libxml2: without threads and modules to be loaded; a network is none of its parts since 2.15.
cd $XML
sed -e 's/@VERSION@/2.15.4/; s/@LIBXML_VERSION_NUMBER@/21504/; s/@LIBXML_VERSION_EXTRA@//; s/@MODULE_EXTENSION@//' \
    -e 's/@WITH_\(THREADS\|THREAD_ALLOC\|HTTP\|ICU\|DEBUG\|MODULES\)@/0/; s/@WITH_[A-Z0-9]*@/1/' \
    include/libxml/xmlversion.h.in > include/libxml/xmlversion.h
cat > config.h << 'H'
#define HAVE_DECL_GETENTROPY 1
#define HAVE_DECL_GLOB 0
#define HAVE_DECL_MMAP 0
#define HAVE_STDINT_H 1
#define HAVE_UNISTD_H 1
#define HAVE_SYS_STAT_H 1
#define HAVE_ZLIB_H 1
#define XML_SYSCONFDIR "/etc"
#define XML_THREAD_LOCAL
H
archive libxml2 $C -I$XML -I$XML/include -- \
    {buf,chvalid,dict,entities,encoding,error,globals,hash,list,parser,parserInternals,SAX2,threads,tree,uri,valid}.c \
    {xmlIO,xmlmemory,xmlstring,c14n,catalog,HTMLparser,HTMLtree,xmlsave,pattern,xmlreader,xmlregexp,relaxng}.c \
    {xmlschemas,xmlschemastypes,schematron,xmlwriter,xinclude,xpath,xlink,xpointer}.c

# libxslt and libexslt: without the debugger, and the hashes and ciphers of libgcrypt.
cd $XSLT
sed -e 's/@VERSION@/1.1.45/; s/@LIBXSLT_VERSION_NUMBER@/10145/; s/@LIBXSLT_VERSION_EXTRA@//' \
    -e 's/@WITH_PROFILER@/1/; s/@WITH_[A-Z_]*@/0/; s/@LIBXSLT_DEFAULT_PLUGINS_PATH@//' libxslt/xsltconfig.h.in > libxslt/xsltconfig.h
sed -e 's/@LIBEXSLT_VERSION@/0.8.25/; s/@LIBEXSLT_VERSION_NUMBER@/825/; s/@LIBEXSLT_VERSION_EXTRA@//; s/@WITH_CRYPTO@/0/' \
    libexslt/exsltconfig.h.in > libexslt/exsltconfig.h
printf '#define HAVE_%s 1\n' CLOCK_GETTIME GETTIMEOFDAY GMTIME_R LOCALTIME_R LOCALE_H SNPRINTF STAT STRXFRM_L SYS_STAT_H \
    SYS_TIME_H SYS_TYPES_H UNISTD_H VSNPRINTF > config.h
archive libxslt $C -I$XSLT -I$XML/include -- libxslt/{attrvt,xslt,xsltlocale,xsltutils,pattern,templates,variables}.c \
    libxslt/{keys,numbers,extensions,extra,functions,namespaces,imports,attributes,documents,preproc,transform,security}.c
archive libexslt $C -I$XSLT -I$XML/include -- libexslt/{exslt,common,crypto,math,sets,functions,strings,date,saxon,dynamic}.c

cd $SOURCE/src
LXML="$C -DNDEBUG -DWITHOUT_THREADING -I$SOURCE/src -I$SOURCE/src/lxml/includes -I$XML/include -I$XSLT"
compiled_module lxml.etree $LXML -- lxml/etree.c
compiled_module lxml.objectify $LXML -- lxml/objectify.c
compiled_module lxml._elementpath $LXML -- lxml/_elementpath.c
$NATIVE_PYTHON $OWN/stages/casts.py $BUILD '' $OWN/stages/casts.allowed
find lxml -name '*.py' -not -path '*/tests/*' -not -path 'lxml/includes/*' -not -name _elementpath.py \
    -not -name _difflib.py -not -name '*doctest*' -exec cp --parents {} $SITE/ \;
$NATIVE_PYTHON $OWN/stages/schematron_data.py lxml/isoschematron/resources $SITE/lxml/isoschematron/_resources.py
