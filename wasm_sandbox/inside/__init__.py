"""Python that runs in the guest, the one home of it: the host only reads it, as text.

``_sandbox_*`` are frozen into our own guest (`runtime/build.sh` takes them from here), ``packages`` is part of the
identity of images with packages, and ``start`` goes to any other CPython.

May import: nothing.
Imported by: nobody.
"""
