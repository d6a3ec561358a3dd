"""Breaks a copy of the tree in one place after the other and sees to it that test_layer.py notices, for the right reason."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import bench

TREE = bench.HERE.parent.parent
RECIPES = "meta-orchestrator/recipes-orchestrator"
RECIPE = f"{RECIPES}/orchestratord/orchestratord_*.bb"
CRATES = f"{RECIPES}/orchestratord/orchestratord-crates.inc"
IMAGE = f"{RECIPES}/images/core-image-orchestrator.bb"
LAYER = "meta-orchestrator/conf/layer.conf"
MENDER = "meta-orchestrator/dynamic-layers/mender"
KERNEL = "meta-orchestrator/recipes-kernel/linux"
PRODUCT = "examples/meta-factory/recipes-factory/press-line"


@dataclass
class Mutation:
    """One defect: in the file, what matches "old" becomes "new"; the checks then complain about "complaint"."""

    name: str
    file: str
    old: str
    new: str
    complaint: str


MUTATIONS = [
    # What the parser itself refuses.
    Mutation("a string without end", RECIPE, r'^DEPENDS = "xz zstd"', 'DEPENDS = "xz zstd', r"unparsed line"),
    Mutation("a class that is not there", RECIPE, r"inherit bash-completion cargo ", r"inherit carrgo ", r"Could not inherit.*carrgo"),
    Mutation("a file that is not there", RECIPE, r"require \$\{BPN\}-crates\.inc", "require crates.inc", r"Could not include.*crates\.inc"),
    Mutation("the old way to append", RECIPE, r"FILES:\$\{PN\}-dev \+=", "FILES_${PN}-dev_append =", r"old override syntax|orchestratord-dev"),
    Mutation("a function that is not there", RECIPE, r"bb\.utils\.filter\(", "bb.utils.sieve(", r"sieve"),
    Mutation("another release of Yocto", LAYER, r'(COMPAT_orchestrator = )"wrynose"', r'\1"scarthgap"', r"not compatible with the core layer"),
    Mutation("no release of Yocto", LAYER, r"^LAYERSERIES_COMPAT.*$", "", r"LAYERSERIES_COMPAT|!= 'wrynose'"),
    Mutation("an append to nothing", f"{KERNEL}/linux-yocto_%.bbappend", None, f"{KERNEL}/linux-yoctto_%.bbappend", r"No recipe for"),
    Mutation("a shell function that does not parse", "meta-orchestrator/classes-recipe/orchestratord_image.bbclass", r"^    fi$", "", r"Syntax error"),
    # Crates and sources.
    Mutation("a crate too few", CRATES, r"^    crate://crates\.io/zbus/.*\n", "", r"crates-inc|zbus"),
    Mutation("the wrong checksum", CRATES, r"^(SRC_URI\[tokio-1.*\"[0-9a-f]{63}).\"", r'\1g"', r"checksums or order differ|tokio"),
    Mutation("another version than the workspace", "Cargo.lock", r'(name = "orchestratord"\nversion = )"[^"]*"', r'\1"9.9.9"', r"9\.9\.9"),
    Mutation("a directory of the source forgotten", RECIPE, r"^    file://systemd;.*\n", "", r"systemd/orchestratord\.service"),
    Mutation("a crate of the workspace forgotten", RECIPE, r"^    file://tests/Cargo\.toml;.*\n", "", r"tests/Cargo\.toml"),
    Mutation("something from a repository", RECIPE, r"^    file://cli;", "    git://example.org/x;branch=main;protocol=https \\\\\n    file://cli;", r"'git'|SRCREV|rev"),
    Mutation("the checksum of another licence", RECIPE, r"md5=3b", "md5=4b", r"md5="),
    # The build.
    Mutation("xz compiled in", RECIPE, r" --no-default-features", "", r"--no-default-features"),
    Mutation("nothing left to turn off", "daemon/Cargo.toml", r'default = \["bundled-xz"\]', "default = []", r"what --no-default-features turns off"),
    Mutation("zstd compiled in", RECIPE, r"^export ZSTD_SYS_USE_PKG_CONFIG", "ZSTD_SYS_USE_PKG_CONFIG", r"has to see it"),
    Mutation("the class installs", RECIPE, r"^do_install\(\)", "do_stage()", r"cargo_do_install"),
    Mutation("the systemd of the builder", RECIPE, r" UNIT_TYPE=notify-reload", " UNIT_TYPE=notify", r"systemd is that of the device"),
    Mutation("built without systemd", RECIPE, r"^REQUIRED_DISTRO_FEATURES.*$", "", r"WithoutSystemd"),
    # Packages and services.
    Mutation("a package forgotten", RECIPE, r'(PACKAGE_BEFORE_PN \+= ")\$\{PN\}-mender', r"\1", r"orchestratord-mender"),
    Mutation("a file in no package", RECIPE, r"^    \$\{datadir\}/dbus-1/system\.d.*\n", "", r"not in the package that is meant for it"),
    Mutation("a file in the wrong package", RECIPE, r"^    \$\{bindir\}/mender-orchestrator.*\n", "", r"not in the package that is meant for it"),
    Mutation("a new file nobody thought of", "Makefile", r"^\t(\$\(call put,644,docs/orchestratord\.8.*)$", "\t\\1\n\t$(call put,644,LICENSE,$(DATADIR)/surprise)", r"no package is meant for it"),
    Mutation("no description of the bus interfaces", RECIPE, r"^FILES:\$\{PN\}-dev.*\n", "", r"not in the package that is meant for it"),
    Mutation("the service misspelt", RECIPE, r'"orchestratord\.service"', '"orchestrator.service"', r"orchestrator\.service"),
    Mutation("the service forgotten", RECIPE, r"^SYSTEMD_SERVICE.*\n", "", r"orchestratord\.service"),
    Mutation("a second unit nobody enables", "Makefile", r"^\t(\$\(call put,644,docs/orchestratord\.8.*)$",
             "\t\\1\n\tcp systemd/orchestratord.service $(DESTDIR)$(UNITDIR)/second.service", r"second\.service"),
    Mutation("nothing on the bus", RECIPE, r'^RDEPENDS:\$\{PN\} = "dbus"\n', "", r"dbus"),
    # Image, state, other layers.
    Mutation("an image without the daemon", IMAGE, r"^IMAGE_INSTALL.*\n", "", r"packagegroup-orchestrator"),
    Mutation("an image that is not checked", IMAGE, r" orchestratord_image", "", r'has no function "orchestratord_check_state"'),
    Mutation("state that an A/B update loses", f"{MENDER}/recipes-orchestrator/orchestratord/orchestratord_%.bbappend",
             r"^ORCHESTRATORD_STATE_DIR.*\n", "", r"var/lib/mender-orchestrator"),
    Mutation("the tier for everybody", f"{MENDER}/recipes-mender/mender-client/mender_%.bbappend",
             r"^require .*$", "require mender-system-tier.inc", r"mender: MENDER_DEVICE_TIER"),
    Mutation("a kernel for everybody", f"{KERNEL}/linux-yocto_%.bbappend", r"^require .*'orchestrator',.*$", "require orchestrator-kernel.inc", r"linux-yocto: SRC_URI"),
    Mutation("a layer that changes others", LAYER, r"\Z", 'EXTRA_IMAGE_FEATURES = "x"\n', r"linux-yocto: EXTRA_IMAGE_FEATURES"),
    Mutation("layers for Mender never read", LAYER, r"^    mender:", "    mander:", r"mender-update|/data/mender-orchestrator|packagegroup-orchestrator-mender"),
    Mutation("no way to report a weakness", "meta-orchestrator/SECURITY.md", r"(?s).+", "", r"test_security"),
    Mutation("nobody maintains it", "meta-orchestrator/README.md", r"(?i)maint", "", r"maintainer"),
    # The example of a product.
    Mutation("a Topology with an Interface that is not there", f"{PRODUCT}/files/topology.yaml", r"press-controller", "pres-controller", r"pres-controller"),
    Mutation("a file of the product in no package", f"{PRODUCT}/press-line_1.0.bb", r"\$\{nonarch_libdir\}/tmpfiles\.d\"", '"', r"tmpfiles\.d/press-line\.conf"),
    Mutation("a key that is not shipped", f"{PRODUCT}/files/mender-orchestrator.conf", r"release\.pem", "relase.pem", r"relase\.pem"),
]


def copy_of_tree(place):
    """Copies what the checks read."""
    names = ["Cargo.lock", "Cargo.toml", "LICENSE", "Makefile", "cli", "daemon", "dbus-interfaces", "docs", "examples", "interfaces",
             "mender", "meta-orchestrator", "systemd", "tests/Cargo.toml", "tools"]
    for name in names:
        source = TREE / name
        if source.is_dir():
            shutil.copytree(source, place / name, symlinks=True)
        elif source.exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place / name)


def apply(mutation, place):
    """Puts the defect into the copy. Fails if it no longer fits the tree: then it would prove nothing."""
    [file] = place.glob(mutation.file)
    if mutation.old is None:
        file.rename(place / mutation.new)
        return
    before = file.read_text(encoding="utf-8")
    after = re.sub(mutation.old, mutation.new, before, flags=re.MULTILINE)
    if before == after:
        raise LookupError(f'the mutation "{mutation.name}" finds nothing to change in {mutation.file}')
    file.write_text(after, encoding="utf-8")


def check(place):
    """Runs the checks on the copy and returns exit status and output."""
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "--failfast", "test_layer"], cwd=bench.HERE, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "ORCHESTRATOR_TREE": str(place)},
    )
    return done.returncode, done.stdout


def unnoticed(mutation, whole):
    """Tries one mutation on a copy of the copy. Returns what is wrong with the checks, or None."""
    with tempfile.TemporaryDirectory(prefix="yocto-mutation.") as scratch:
        place = Path(scratch).resolve() / "broken"
        shutil.copytree(whole, place, symlinks=True)
        apply(mutation, place)
        status, said = check(place)
    if status == 0:
        return f'"{mutation.name}" was not noticed'
    if not re.search(mutation.complaint, said):
        return f'"{mutation.name}" failed for another reason:\n{said}'
    return None


def main(names):
    """Tries all mutations, or those of the given names, and returns the exit status."""
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    with tempfile.TemporaryDirectory(prefix="yocto-mutations.") as scratch, ThreadPoolExecutor(os.cpu_count()) as workers:
        whole = Path(scratch).resolve() / "whole"
        whole.mkdir()
        copy_of_tree(whole)
        status, said = check(whole)
        if status != 0:
            print(f"The copy of the tree does not pass, although nothing is broken in it:\n{said}", file=sys.stderr)
            return 1
        defects = [defect for defect in workers.map(lambda mutation: unnoticed(mutation, whole), chosen) if defect]
    for defect in defects:
        print(f"mutations: {defect}", file=sys.stderr)
    print(f"mutations: {len(chosen) - len(defects)} of {len(chosen)} defects were noticed")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
