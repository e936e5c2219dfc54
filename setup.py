"""What pyproject.toml cannot say: each compiled part is built with a digest of its C sources, for its loader."""

import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

source_digest = runpy.run_path("impq_opt/exactness/build.py")["source_digest"]
LIMITS = runpy.run_path("impq_opt/exactness/limits.py")["shared"]()


class BuildExtensions(build_ext):
    """Defines SOURCES and the limits, and builds anew what was built from others, whatever the files' times say."""

    def build_extension(self, ext: Extension) -> None:
        digest = source_digest(Path(ext.sources[0]).absolute())
        ext.define_macros += [("SOURCES", digest), *((name, str(value)) for name, value in LIMITS.items())]
        built = Path(self.get_ext_fullpath(ext.name))
        self.force = not (built.exists() and digest.encode() in built.read_bytes())
        super().build_extension(ext)


setup(cmdclass={"build_ext": BuildExtensions})
