#!/bin/bash
# pandas with dateutil: its compiled modules as archives, and the Python files.
# uses: flavours/science/sources/pandas-* flavours/science/sources/python_dateutil-* recipe/science/patches/pandas-* recipe/science/patches/dateutil-* recipe/science/meson/*.ini recipe/science/meson/bin/*
. /guest/recipe/science/stages/common.sh
SOURCE=$OWN_WORK/pandas BUILD=$OWN_WORK/pandas-build STUB=$OWN_WORK/numpy-for-pandas
rm -rf $BUILD $STUB $OWN_WORK/site/{pandas,dateutil}
sed -i '/pandas/d' $OWN_WORK/modules $OWN_WORK/link
unpack_from $OWN_WORK/sources/pandas-3.1.1.tar.gz $SOURCE
apply pandas $SOURCE
touch $SOURCE/versioneer.py # imported and not used: the archive says which version it is

# The native interpreter cannot import the guest's numpy: a package with its headers and declarations stands for it.
mkdir -p $STUB/numpy/_core
cat > $STUB/numpy/__init__.py << P
def get_include():
    return "$STUB/numpy/_core/include"
P
cp $OWN_WORK/numpy/numpy/*.pxd $STUB/numpy/
cp -r $OWN_WORK/numpy/numpy/_core/include $STUB/numpy/_core/
cp $OWN_WORK/numpy-build/numpy/_core/{_numpyconfig,__multiarray_api,__ufunc_api}.h $STUB/numpy/_core/include/numpy/

cd $SOURCE
export PYTHONPATH=$STUB
run $OWN_WORK/pandas-configure.log pandas-meson setup $BUILD --cross-file $OWN/meson/pandas.ini --buildtype=plain -Db_ndebug=true \
    --wrap-mode=nodownload
compile $BUILD

module pandas._libs._cyutility $BUILD/_cyutility$SUFFIX
for directory in $BUILD/pandas/_libs{,/tslibs,/window}/*$SUFFIX; do
    name=${directory#$BUILD/}; name=${name%$SUFFIX}
    module ${name//\//.} $directory
done
find $BUILD -name 'lib*.a' | sort >> $OWN_WORK/link

cd $SOURCE
find pandas -name '*.py' -not -path '*/tests/*' -not -path 'pandas/_libs/src/*' -exec cp --parents {} $OWN_WORK/site/ \;
cp _version_meson.py $OWN_WORK/site/pandas/
$NATIVE_PYTHON -m zipfile -e $OWN_WORK/sources/python_dateutil-*.whl $OWN_WORK/site
apply dateutil $OWN_WORK/site
