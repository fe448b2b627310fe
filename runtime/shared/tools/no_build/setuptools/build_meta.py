"""A build back-end that builds nothing, as methods of a class: Pillow's own derives from the class of the original."""

import mesonpy


class Nothing:
    """What pip asks for when it saves an sdist."""

    def get_requires_for_build_wheel(self, config_settings=None):
        return []

    def prepare_metadata_for_build_wheel(self, metadata_directory, config_settings=None):
        return mesonpy.prepare_metadata_for_build_wheel(metadata_directory, config_settings)

    def build_wheel(self, *arguments):
        raise NotImplementedError("this back-end builds nothing")


_nothing = Nothing()
get_requires_for_build_wheel = _nothing.get_requires_for_build_wheel
prepare_metadata_for_build_wheel = _nothing.prepare_metadata_for_build_wheel
build_wheel = _nothing.build_wheel
__legacy__ = _nothing  # of packages that name no back-end
