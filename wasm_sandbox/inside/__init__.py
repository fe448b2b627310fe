"""Python that runs in the guest; the host only reads it, as text. Part of images' identity.

May import: nothing.
Imported by: nobody.
"""
