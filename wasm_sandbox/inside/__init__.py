"""Python that runs in the guest, the one home of it: the host only reads it, as text.

``_sandbox_*`` are frozen into our own guest (`runtime/build.sh` takes them from here). ``_live``, ``_output`` and
``_threads`` are installed in it before its snapshot, as ``_sandbox_live`` and so on; so is ``_science`` in a guest with
numpy and pandas. ``packages`` is part of the identity of images with packages, and ``start`` goes to any other CPython.

May import: nothing.
Imported by: nobody.
"""
