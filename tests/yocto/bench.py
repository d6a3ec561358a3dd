"""Reads layers with the genuine parser of bitbake, over a stand-in for OE-core.

The parser, the matching of bbappends and the fetcher are bitbake's own, from the package "bitbake-setup". It has everything but
the servers for hashes and package revisions, which nothing here asks. What comes from OE-core in a real build (classes,
toolchain, most tasks) is not here; docs/yocto.md tells how to go through all of that.
"""

import glob
import logging
import os
import re
import subprocess
import sys
import types
from pathlib import Path

for _name in ("hashserv", "hashserv.client", "prserv", "prserv.serv"):
    sys.modules[_name] = types.ModuleType(_name)

import bb  # noqa: E402
import bb.cooker  # noqa: E402
import bb.cookerdata  # noqa: E402
import bb.fetch2  # noqa: E402

HERE = Path(__file__).resolve().parent
CORE = HERE / "core"
MENDER = HERE / "mender"

# What a recipe's shell functions may call in a build, and do not find here.
SHELL_PRELUDE = """
set -eu
bbfatal() { printf 'bbfatal: %s\\n' "$*" >&2; exit 1; }
oe_runmake() { env -u MAKEFLAGS -u MAKELEVEL make -s "$@"; }
"""


class Complaints(logging.Handler):
    """Keeps what bitbake says at the level of a warning or above."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts = []

    def emit(self, record):
        self.texts.append(f"{record.levelname}: {record.getMessage()}")


class ParseError(Exception):
    """The layers cannot be read. The message is all that bitbake said."""


class Recipe:
    """A recipe after parsing, or one of its variants."""

    def __init__(self, datastore, appends):
        self.datastore = datastore
        self.appends = [Path(append) for append in appends]

    def __getitem__(self, variable):
        """The value of a variable, expanded; empty if it is not set."""
        return self.datastore.getVar(variable) or ""

    def words(self, variable):
        """The words of a variable."""
        return self[variable].split()

    def flag(self, variable, flag):
        """A flag of a variable, or None."""
        return self.datastore.getVarFlag(variable, flag)

    def raw(self, ignored):
        """All variables with their values as written, except those that the pattern ignores."""
        names = [name for name in self.datastore.keys() if not ignored.fullmatch(name)]
        return {name: self.datastore.getVar(name, expand=False) for name in names}

    @property
    def skipped(self):
        """Why the recipe cannot be built in this configuration, or None."""
        return self.datastore.getVar("__SKIPPED")

    def fetches(self):
        """What SRC_URI makes bitbake fetch."""
        return bb.fetch2.Fetch(self.words("SRC_URI"), self.datastore).ud.values()

    def local_paths(self):
        """Where bitbake finds the files of SRC_URI here."""
        uris = [uri for uri in self.words("SRC_URI") if uri.startswith("file:")]
        fetch = bb.fetch2.Fetch(uris, self.datastore)
        return [Path(fetch.localpath(uri)) for uri in uris]

    def unpack_local(self):
        """Fetches and unpacks what comes from files here, as a build would."""
        local = [uri for uri in self.words("SRC_URI") if uri.startswith("file:")]
        fetch = bb.fetch2.Fetch(local, self.datastore)
        fetch.download()
        os.makedirs(self["UNPACKDIR"], exist_ok=True)
        fetch.unpack(self["UNPACKDIR"])
        return Path(self["UNPACKDIR"])

    def run(self, function):
        """Runs a shell function of the recipe and returns its exit status and what it printed."""
        if not self[function]:
            raise KeyError(f'The recipe "{self["PN"]}" has no function "{function}".')
        script = f"{SHELL_PRELUDE}\n{function}() {{\n{self[function]}\n}}\n{function}\n"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def package_of(self):
        """What do_install left in D, with the package that takes it: files, links and empty directories by path.

        The first package of PACKAGES with a matching pattern in FILES takes a file; a directory stands for all that is in it.
        """
        root = Path(self["D"])
        owners = {}
        for directory, names, files in os.walk(root):
            here = Path(directory)
            links = [name for name in names if (here / name).is_symlink()]
            for name in files + links:
                owners["/" + str((here / name).relative_to(root))] = None
            if not names and not files and here != root:
                owners["/" + str(here.relative_to(root))] = None
        for package in self.words("PACKAGES"):
            for pattern in self.words(f"FILES:{package}"):
                for match in glob.glob(str(root) + pattern, recursive=True):
                    path = match.removeprefix(str(root)).rstrip("/")
                    for found, owner in owners.items():
                        if owner is None and (found == path or found.startswith(path + "/")):
                            owners[found] = package
        return owners


class Bench:
    """Layers and settings, read as bitbake reads them."""

    def __init__(self, build, layers, settings):
        """Parses everything. build: an empty directory. settings: lines of local.conf."""
        (build / "conf").mkdir()
        (build / "conf" / "bblayers.conf").write_text(
            'BBPATH = "${TOPDIR}"\nBBFILES ?= ""\nBBLAYERS = "' + " ".join(map(str, layers)) + '"\n', encoding="utf-8"
        )
        (build / "conf" / "local.conf").write_text(settings + "\n", encoding="utf-8")
        os.chdir(build)  # bitbake looks for conf/bblayers.conf from here.

        complaints = Complaints()
        logger = logging.getLogger("BitBake")
        logger.addHandler(complaints)
        logger.propagate = False
        try:
            self._parse()
        except (Exception, SystemExit) as error:  # pylint: disable=broad-except
            # Most of what goes wrong has been logged; some of it is an exception only.
            raise ParseError("\n".join([*complaints.texts, f"{type(error).__name__}: {error}"])) from error
        finally:
            logger.removeHandler(complaints)
        if complaints.texts:
            raise ParseError("\n".join(complaints.texts))

    def _parse(self):
        builder = bb.cookerdata.CookerDataBuilder(bb.cookerdata.CookerConfiguration(), worker=True)
        builder.parseBaseConfiguration()
        self.config = config = builder.data

        self.collections = (config.getVar("BBFILE_COLLECTIONS") or "").split()
        priorities = []
        for name in self.collections:
            pattern = config.getVar(f"BBFILE_PATTERN_{name}")
            priorities.append((name, pattern, re.compile(pattern), int(config.getVar(f"BBFILE_PRIORITY_{name}"))))
        collected = bb.cooker.CookerCollectFiles(priorities)
        files, _, _ = collected.collect_bbfiles(config, config)

        used = set()
        self.recipes = {}
        for file in files:
            appends = collected.get_file_appends(file)
            used.update(appends)
            layer = collected.calc_bbfile_priority(file)[2]
            for datastore in builder.parseRecipeVariants(file, appends, layername=layer).values():
                recipe = Recipe(datastore, appends)
                if not recipe.skipped:
                    self._expand(datastore)
                self.recipes[recipe["PN"]] = recipe
        unused = sorted({append for _, append in collected.bbappends} - used)
        if unused:
            raise ParseError("No recipe for " + ", ".join(unused))

    @staticmethod
    def _expand(datastore):
        """Expands all variables and reads all functions, as bitbake does to make the hashes of tasks."""
        for name in datastore.keys():
            if not name.startswith("__") and not datastore.getVarFlag(name, "func", False):
                datastore.getVar(name)
        bb.data.generate_dependencies(datastore, set())
