# SPDX-License-Identifier: Apache-2.0
"""Build ROS 2 message packages with setuptools and a C++ compiler alone: no cmake, no ament, nothing to source.

The rosidl generators that the rclpy wheel depends on turn every .msg and .srv file into C, C++ and Python. All
compiled code of a package is linked into the one extension module that rclpy imports, so there is no library to be
found at run time but those of the ROS wheels, at a fixed place relative to the module.
"""

import contextlib
import inspect
import io
import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError

COMPILE_JOBS = 2
C_GENERATORS = ("rosidl_generator_c", "rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c")
# What one message package offers to the others, all of it needed to nest its messages in ours.
DEPENDENCY_LIBRARIES = (*C_GENERATORS, "rosidl_generator_py")
RUNTIME_LIBRARIES = (
    "rosidl_typesupport_c",
    "rosidl_typesupport_introspection_c",
    "rosidl_typesupport_fastrtps_c",
    "rosidl_typesupport_fastrtps_cpp",
    "rosidl_runtime_c",
    "rcutils",
    "fastcdr",
)

# rosidl's own dispatcher opens one library per type support by name; here both are linked in and chosen by a string
# comparison. The handles stay zero until first use because the identifier lives in another library.
DISPATCH_HEAD = """\
#include <string.h>
#include "rosidl_runtime_c/message_type_support_struct.h"
#include "rosidl_runtime_c/service_type_support_struct.h"
#include "rosidl_typesupport_c/identifier.h"
#include "rosidl_typesupport_interface/macros.h"
"""
DISPATCH = """
const rosidl_{kind}_type_support_t * {symbol}(rosidl_typesupport_fastrtps_c, {path})(void);
const rosidl_{kind}_type_support_t * {symbol}(rosidl_typesupport_introspection_c, {path})(void);
static const rosidl_{kind}_type_support_t * find_{name}(
  const rosidl_{kind}_type_support_t * handle, const char * identifier)
{{
  if (strcmp(identifier, "rosidl_typesupport_fastrtps_c") == 0) {{
    return {symbol}(rosidl_typesupport_fastrtps_c, {path})();
  }}
  if (strcmp(identifier, "rosidl_typesupport_introspection_c") == 0) {{
    return {symbol}(rosidl_typesupport_introspection_c, {path})();
  }}
  return strcmp(identifier, handle->typesupport_identifier) == 0 ? handle : NULL;
}}
static rosidl_{kind}_type_support_t handle_{name} = {{
  .func = find_{name},
  .get_type_hash_func = {prefix}__get_type_hash,
  .get_type_description_func = {prefix}__get_type_description,
  .get_type_description_sources_func = {prefix}__get_type_description_sources,
}};
const rosidl_{kind}_type_support_t * {symbol}(rosidl_typesupport_c, {path})(void)
{{
{members}  handle_{name}.typesupport_identifier = rosidl_typesupport_c__typesupport_identifier;
  return &handle_{name};
}}
"""
SERVICE_MEMBERS = """\
  handle_{name}.request_typesupport = {message}(rosidl_typesupport_c, {path}_Request)();
  handle_{name}.response_typesupport = {message}(rosidl_typesupport_c, {path}_Response)();
  handle_{name}.event_typesupport = {message}(rosidl_typesupport_c, {path}_Event)();
  handle_{name}.event_message_create_handle_function =
    ROSIDL_TYPESUPPORT_INTERFACE__SERVICE_CREATE_EVENT_MESSAGE_SYMBOL_NAME(rosidl_typesupport_c, {path});
  handle_{name}.event_message_destroy_handle_function =
    ROSIDL_TYPESUPPORT_INTERFACE__SERVICE_DESTROY_EVENT_MESSAGE_SYMBOL_NAME(rosidl_typesupport_c, {path});
"""


def extension_name(package: str) -> str:
    """Module that rosidl imports to find the C code of ``package``."""
    return f"{package}.{package}_s__rosidl_typesupport_c"


def find_tools() -> tuple[list[str], list[str]]:
    """The C and C++ compiler commands.

    Raises:
        PlatformError: a compiler or Python's headers are missing; says what to install.
    """
    compilers = [os.environ.get("CC", "gcc").split(), os.environ.get("CXX", "g++").split()]
    missing = [command[0] for command in compilers if shutil.which(command[0]) is None]
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        missing.append("Python.h")
    if missing:
        raise PlatformError(
            f"Building the ROS message packages needs {', '.join(missing)}: "
            "install a compiler and Python's headers (Debian, Ubuntu: sudo apt install g++ python3-dev)."
        )
    return compilers[0], compilers[1]


def ros_prefix() -> Path:
    """Folder with the include, lib and share of the ROS wheels that this Python imports."""
    try:
        from rosidl_generator_c import generate_c
    except ImportError as error:
        raise PlatformError(
            "Building the ROS message packages needs ROS 2 Jazzy from PyPI: pip install ros-jazzy-rclpy "
            f"ros-jazzy-sensor-msgs, or build with pip's isolation on ({error})."
        ) from error
    return Path(inspect.getfile(generate_c)).parents[4]


class InterfacePackage:
    """One message package on its way from definitions to compiled code.

    Args:
        name: of the message package.
        definitions: its ``<name>/msg/*.msg`` and ``<name>/srv/*.srv`` files.
        dependencies: installed message packages that the definitions refer to, transitively.
        prefix: of the ROS wheels, see :func:`ros_prefix`.
        work: folder for what is generated.
    """

    def __init__(self, name: str, definitions: Iterable[str], dependencies: list[str], prefix: Path, work: Path):
        self.name = name
        self.definitions = [Path(path).resolve() for path in definitions]
        self.dependencies = dependencies
        self.share = prefix / "share"
        self.work = work

    def interfaces(self) -> Iterator[tuple[str, str]]:
        """Pairs such as ("msg", "Octomap"), those that a service implies included."""
        for path in self.definitions:
            folder = path.parent.name
            if folder == "srv":
                yield from ((folder, path.stem + part) for part in ("_Request", "_Response", "_Event"))
            yield folder, path.stem

    def generate(self) -> None:
        """Write all C, C++ and Python code below ``work``."""
        from rosidl_generator_c import generate_c
        from rosidl_generator_py.generate_py_impl import generate_py
        from rosidl_generator_type_description import generate_type_hash
        from rosidl_typesupport_fastrtps_c import generate_typesupport_fastrtps_c
        from rosidl_typesupport_introspection_c import generate_c as generate_introspection_c

        shutil.rmtree(self.work, ignore_errors=True)
        files = self._convert_to_idl()
        include_paths = [f"{package}:{self.share / package}" for package in self.dependencies]
        descriptions = self.work / "rosidl_generator_type_description" / self.name
        generate_type_hash(self._arguments("rosidl_generator_type_description", files, include_paths=include_paths))
        hashes = [f"{file}:{(descriptions / file).with_suffix('.json')}" for file in files]
        generate_c(self._arguments("rosidl_generator_c", files, type_description_tuples=hashes), False)
        generate_typesupport_fastrtps_c(self._arguments("rosidl_typesupport_fastrtps_c", files))
        generate_introspection_c(self._arguments("rosidl_typesupport_introspection_c", files))
        generate_py(self._arguments("rosidl_generator_py", files), ["rosidl_typesupport_c"])
        # A folder of the same name earlier on sys.path must not hide the package: namespace packages give way.
        (self.work / "rosidl_generator_py" / self.name / "__init__.py").touch()
        for generator in C_GENERATORS:
            self._write_visibility_header(generator)
        self._write_dispatch()

    def sources(self) -> list[Path]:
        """Generated C and C++ files, longest to compile first."""
        found = [path for path in self.work.rglob("*.c*") if path.suffix in (".c", ".cpp")]
        return sorted(found, key=lambda path: (path.suffix != ".cpp", -path.stat().st_size))

    def python_files(self) -> dict[Path, Path]:
        """Generated Python files by their place in site-packages."""
        root = self.work / "rosidl_generator_py"
        return {path.relative_to(root): path for path in root.rglob("*.py")}

    def _convert_to_idl(self) -> list[str]:
        """Translate the definitions; returns paths such as ``msg/Octomap.idl``."""
        from rosidl_adapter.msg import convert_msg_to_idl
        from rosidl_adapter.srv import convert_srv_to_idl

        converters = {".msg": convert_msg_to_idl, ".srv": convert_srv_to_idl}
        files = []
        for path in self.definitions:
            file = path.relative_to(path.parents[1])
            with contextlib.redirect_stdout(io.StringIO()):  # The converters print every path.
                converters[path.suffix](path.parents[1], self.name, file, self.work / "idl" / self.name / file.parent)
            files.append(file.with_suffix(".idl").as_posix())
        return files

    def _arguments(self, generator: str, files: list[str], **extra: list[str]) -> str:
        """Write the argument file of a generator; returns its path."""
        output = self.work / generator / self.name
        output.mkdir(parents=True, exist_ok=True)
        arguments = {
            "package_name": self.name,
            "idl_tuples": [f"{self.work / 'idl' / self.name}:{file}" for file in files],
            "target_dependencies": [],
            "ros_interface_dependencies": [],
            "ros_interface_files": [str(path) for path in self.definitions],
            "output_dir": str(output),
            "template_dir": str(self.share / generator / "resource"),
            **extra,
        }
        path = self.work / f"{generator}.json"
        path.write_text(json.dumps(arguments), encoding="utf-8")
        return str(path)

    def _write_visibility_header(self, generator: str) -> None:
        """What cmake would configure: the header with the export macros."""
        template = self.share / generator / "resource" / f"{generator}__visibility_control.h.in"
        text = template.read_text(encoding="utf-8")
        text = text.replace("@PROJECT_NAME_UPPER@", self.name.upper()).replace("@PROJECT_NAME@", self.name)
        header = self.work / generator / self.name / "msg" / f"{generator}__visibility_control.h"
        header.parent.mkdir(exist_ok=True)
        header.write_text(text, encoding="utf-8")

    def _write_dispatch(self) -> None:
        """Write the functions that hand out the type support asked for."""
        from rosidl_pycommon import convert_camel_case_to_lower_case_underscore

        parts = [DISPATCH_HEAD]
        for path in self.definitions:
            stem = convert_camel_case_to_lower_case_underscore(path.stem)
            for header in ("functions", "type_support"):
                parts.append(f'#include "{self.name}/{path.parent.name}/detail/{stem}__{header}.h"\n')
        services = {path.stem for path in self.definitions if path.suffix == ".srv"}
        for folder, name in self.interfaces():
            kind = "service" if folder == "srv" and name in services else "message"
            message, symbol = (
                f"ROSIDL_TYPESUPPORT_INTERFACE__{word}_SYMBOL_NAME" for word in ("MESSAGE", kind.upper())
            )
            path = f"{self.name}, {folder}, {name}"
            members = SERVICE_MEMBERS.format(name=name, path=path, message=message) if kind == "service" else ""
            prefix = f"{self.name}__{folder}__{name}"
            parts.append(
                DISPATCH.format(kind=kind, symbol=symbol, path=path, name=name, prefix=prefix, members=members)
            )
        output = self.work / "rosidl_typesupport_c" / "dispatch.c"
        output.parent.mkdir()
        output.write_text("".join(parts), encoding="utf-8")


class BuildInterfaces(build_ext):
    """Build one extension per message package; ``libraries`` of an extension are the packages it depends on."""

    def run(self) -> None:
        """Generate in this thread while the packages generated before compile in others."""
        self.cc, self.cxx = find_tools()
        self.prefix = ros_prefix()
        with ThreadPoolExecutor(COMPILE_JOBS) as pool:
            started = [(extension, self._start(extension, pool)) for extension in self.extensions]
            for extension, objects in started:
                self._link(extension, [job.result() for job in objects])

    def _start(self, extension: Extension, pool: ThreadPoolExecutor) -> list[Future[Path]]:
        """Generate a package, copy its Python files and queue its compilations."""
        name = extension.name.partition(".")[0]
        work = Path(self.build_temp).resolve() / name
        package = InterfacePackage(name, extension.sources, extension.libraries, self.prefix, work)
        package.generate()
        for target, source in package.python_files().items():
            destination = Path(self.get_ext_fullpath(extension.name)).resolve().parents[1] / target
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, destination)
        flags = self._compile_flags(name, work)
        return [pool.submit(self._compile, source, flags) for source in package.sources()]

    def _compile_flags(self, name: str, work: Path) -> list[str]:
        import numpy

        folders = [work / generator for generator in C_GENERATORS]
        folders += [Path(sysconfig.get_paths()["include"]), Path(numpy.get_include()), self.prefix / "include"]
        folders += [path for path in sorted((self.prefix / "include").iterdir()) if path.is_dir()]
        flags = ["-O1", "-g0", "-fPIC", "-w", f'-DROS_PACKAGE_NAME="{name}"']
        return flags + [f"-I{folder}" for folder in folders]

    def _compile(self, source: Path, flags: list[str]) -> Path:
        compiler = [*self.cxx, "-std=c++17"] if source.suffix == ".cpp" else self.cc
        target = source.with_suffix(".o")
        run_compiler([*compiler, *flags, "-c", str(source), "-o", str(target)])
        return target

    def _link(self, extension: Extension, objects: list[Path]) -> None:
        target = Path(self.get_ext_fullpath(extension.name)).resolve()
        libraries = [f"{package}__{part}" for package in extension.libraries for part in DEPENDENCY_LIBRARIES]
        # site-packages/<package>/<module>.so to the lib folder of the environment.
        search = [f"-L{self.prefix / 'lib'}", f"-Wl,-rpath-link,{self.prefix / 'lib'}", "-Wl,-rpath,$ORIGIN/../../.."]
        names = [f"-l{library}" for library in (*libraries, *RUNTIME_LIBRARIES)]
        run_compiler([*self.cxx, "-shared", "-s", "-o", str(target), *map(str, objects), *search, *names])


def run_compiler(command: list[str]) -> None:
    """Run one compiler command.

    Raises:
        CompileError: it failed; carries its messages.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(f"{command[0]} failed on {command[-1]}:\n{done.stderr}")
