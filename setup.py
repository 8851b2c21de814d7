"""The distribution package `trifuse`: one name in site-packages, whatever else is installed.

`cache`, `configs`, `extract` and `fuse` are names that others use too (`fuse` is fusepy's). In the checkout they are
found because it comes first on the path; an installed package may claim neither the names nor the place. So the wheel
holds them as `trifuse.cache` and so on, and on the way into it every `from cache.x import y` becomes
`from trifuse.cache.x import y`. Nothing is done to any path, and the names stay free for others. What is not an import
statement stays as it is: commands that start a module by name ask `configs.command.launch.module_name`.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
FOLDERS = ("cache", "configs", "extract", "fuse")
FROM = re.compile(rf"^(\s*from )(?=(?:{'|'.join(FOLDERS)})(?:\.[\w.]+)? import )", re.MULTILINE)
IMPORT = re.compile(rf"^(\s*import )(?=(?:{'|'.join(FOLDERS)})(?:\.[\w.]+)? as )", re.MULTILINE)
# Would bind the first part of a name, which is another in the wheel.
UNNAMED = re.compile(rf"^\s*import (?:{'|'.join(FOLDERS)})(?:\.[\w.]+)?\s*(?:,.*)?$", re.MULTILINE)


def inside_trifuse(source: str, where: str) -> str:
    """A module's source as it stands in the wheel.

    Raises:
        ValueError: it has an import that cannot be moved by its first word alone.
    """
    if found := UNNAMED.search(source):
        raise ValueError(f"{where}: write `{found[0].strip()} as NAME`: the wheel holds it as trifuse.*")
    return IMPORT.sub(r"\1trifuse.", FROM.sub(r"\1trifuse.", source))


class BuildInside(build_py):
    """Copies modules with their imports moved."""

    def run(self) -> None:
        """Start from an empty folder: modules that are gone would be packed again."""
        if self.editable_mode:
            raise SystemExit(
                "error: no editable install; run from the checkout (make, or PYTHONPATH=/path/to/checkout)"
            )
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()

    def build_module(self, module: str, module_file: str, package: str) -> tuple[str, bool]:
        """Copy one, then write it as it must be."""
        target, copied = super().build_module(module, module_file, package)
        file = Path(target)
        file.write_text(inside_trifuse(file.read_text(encoding="utf-8"), module_file), encoding="utf-8")
        return target, copied


def imported_packages() -> list[str]:
    """The first part of requirements.txt, pins and all: other versions may draw other noise."""
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").partition("\n# Tests")[0].splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]


if __name__ == "__main__":
    inner = find_packages(str(HERE), include=[pattern for name in FOLDERS for pattern in (name, f"{name}.*")])
    setup(
        packages=["trifuse", *(f"trifuse.{name}" for name in inner)],
        package_dir={"trifuse": "trifuse", **{f"trifuse.{name}": name for name in FOLDERS}},
        package_data={"trifuse.configs": ["**/*.yaml"], "trifuse.fuse": ["**/*.j2", "**/*.css", "**/*.js"]},
        install_requires=imported_packages(),
        cmdclass={"build_py": BuildInside},
    )
