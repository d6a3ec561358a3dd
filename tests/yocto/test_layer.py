"""What must be true of meta-orchestrator and of the example of a product's layer.

ORCHESTRATOR_TREE names another tree to look at; mutations.py makes broken ones.
"""

import contextlib
import fnmatch
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path

import bench

TREE = Path(os.environ.get("ORCHESTRATOR_TREE", bench.HERE.parent.parent)).resolve()
LAYER = TREE / "meta-orchestrator"
EXAMPLE = TREE / "examples" / "meta-factory"

SYSTEMD = 'DISTRO_FEATURES = "systemd"'
EVERYTHING = """
DISTRO_FEATURES = "systemd polkit api-documentation orchestrator orchestrator-vplc"
MENDER_FEATURES_ENABLE = "mender-image mender-systemd"
ORCHESTRATORD_SYSTEM_TIER = "1"
"""

# Which package each installed file belongs into. A file that is not here has no package yet, and somebody has to think of one.
PACKAGE_OF = {
    "/usr/bin/mender-orchestrator": "orchestratord-mender",
    "/usr/bin/mender-orchestrator-manifest-gen": "orchestratord-mender",
    "/usr/bin/orchestratorctl": "orchestratord",
    "/usr/lib/systemd/system/orchestratord-mender.service": "orchestratord-mender",
    "/usr/lib/systemd/system/orchestratord.service": "orchestratord",
    "/usr/lib/systemd/system/orchestratord.service.d/10-state.conf": "orchestratord",
    "/usr/lib/sysusers.d/orchestrator*.conf": "orchestratord",
    "/usr/lib/tmpfiles.d/orchestrator*.conf": "orchestratord",
    "/usr/libexec/orchestratord": "orchestratord",
    "/usr/share/bash-completion/completions/*": "orchestratord-bash-completion",
    "/usr/share/dbus-1/interfaces/org.orchestratord1.*.xml": "orchestratord-dev",
    "/usr/share/dbus-1/system-services/org.orchestratord1.service": "orchestratord",
    "/usr/share/dbus-1/system.d/org.orchestratord1.conf": "orchestratord",
    "/usr/share/fish/vendor_completions.d/*": "orchestratord-fish-completion",
    "/usr/share/man/man?/*": "orchestratord-doc",
    "/usr/share/mender-orchestrator/interfaces/v1": "orchestratord",
    "/usr/share/mender-orchestrator/interfaces/v1/rootfs-image": "orchestratord-mender",
    "/usr/share/mender-orchestrator/interfaces/v1/single-file": "orchestratord",
    "/usr/share/mender-orchestrator/interfaces/v1/vplc-image": "orchestratord",
    "/usr/share/mender-orchestrator/interfaces/v1/vplc-program": "orchestratord",
    "/usr/share/mender/inventory/*": "orchestratord-mender",
    "/usr/share/mender/modules/v3/*": "orchestratord-mender",
    "/usr/share/polkit-1/actions/org.orchestratord1.policy": "orchestratord",
    "/usr/share/zsh/site-functions/*": "orchestratord-zsh-completion",
    "/var/lib/mender-orchestrator": "orchestratord",
}

# Stands in for what cargo builds. The command line is called during the installation.
PROGRAM = """#!/bin/sh
case ${1-} in
    man) echo page >"$2/orchestratorctl.1"; echo page >"$2/mender-orchestrator.1" ;;
    completions) echo "$2 $4" ;;
esac
"""


def text(*path):
    """The text of a file of the layer."""
    return LAYER.joinpath(*path).read_text(encoding="utf-8")


def locked():
    """The packages in Cargo.lock."""
    return tomllib.loads((TREE / "Cargo.lock").read_text(encoding="utf-8"))["package"]


def executable(path):
    """Puts PROGRAM there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROGRAM, encoding="utf-8")
    path.chmod(0o755)


class Files(unittest.TestCase):
    """What needs no parser; the rules are those of yocto-check-layer."""

    def test_readme_says_who_maintains_and_where_patches_go(self):
        readme = text("README.md").lower()
        for word in ("maintainer", "patch", "depend"):
            self.assertIn(word, readme)

    def test_security_and_licence(self):
        self.assertGreater(len(text("SECURITY.md")), 200)
        self.assertEqual(text("COPYING"), (TREE / "LICENSE").read_text(encoding="utf-8"))

    def test_crates_are_those_of_the_lock(self):
        done = subprocess.run(
            [sys.executable, TREE / "tools" / "crates-inc", "--check"], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)


class Scene(unittest.TestCase):
    """Layers and settings that several checks look at."""

    layers = [bench.CORE, LAYER]
    settings = SYSTEMD

    @classmethod
    def setUpClass(cls):
        place = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="yocto-check."))
        cls.addClassCleanup(os.chdir, os.getcwd())
        cls.bench = bench.Bench(Path(place).resolve(), cls.layers, cls.settings)
        cls.recipes = cls.bench.recipes

    def installed(self, recipe):
        """Runs do_install of the daemon's recipe on its unpacked source; returns the package of each file."""
        recipe.unpack_local()
        for program in ("orchestratord", "orchestratorctl"):
            executable(Path(recipe["B"]) / "target" / recipe["CARGO_TARGET_SUBDIR"] / program)
        executable(Path(recipe["STAGING_BINDIR_NATIVE"]) / "orchestratorctl")
        shutil.rmtree(recipe["D"], ignore_errors=True)
        os.makedirs(recipe["D"])
        status, said = recipe.run("do_install")
        self.assertEqual(status, 0, said)
        return recipe.package_of()

    def check_packages(self, recipe):
        """Every file is in the package that PACKAGE_OF says. Returns the files."""
        owners = self.installed(recipe)
        for path, package in owners.items():
            rows = [row for row in PACKAGE_OF if fnmatch.fnmatchcase(path, row) and row.count("/") == path.count("/")]
            self.assertEqual(len(rows), 1, f"{path}: no package is meant for it (PACKAGE_OF in tests/yocto/test_layer.py)")
            self.assertEqual(package, PACKAGE_OF[rows[0]], f"{path}: not in the package that is meant for it")
        return owners

    def check_service(self, recipe):
        """Every unit that can be enabled is, and no other."""
        units = Path(recipe["D"]) / recipe["systemd_system_unitdir"].lstrip("/")
        enabled = {unit.name for unit in units.glob("*.*") if unit.is_file() and "\n[Install]\n" in unit.read_text("utf-8")}
        self.assertEqual(enabled, {"orchestratord.service", "orchestratord-mender.service"})
        packages = recipe.words("SYSTEMD_PACKAGES")
        self.assertEqual(packages, ["orchestratord", "orchestratord-mender"])
        services = [service for package in packages for service in recipe.words(f"SYSTEMD_SERVICE:{package}")]
        self.assertEqual(services, ["orchestratord.service", "orchestratord-mender.service"])


class Plain(Scene):
    """The layer beside OE-core, and nothing asked for."""

    def test_layer(self):
        config = self.bench.config
        self.assertEqual(config.getVar("LAYERSERIES_COMPAT_orchestrator"), "wrynose")
        self.assertEqual(config.getVar("LAYERDEPENDS_orchestrator"), "core")
        self.assertTrue(config.getVar("LAYERVERSION_orchestrator"))

    def test_recipes(self):
        self.assertEqual(
            set(self.recipes) - {"linux-yocto"},
            {"orchestratord", "orchestratord-native", "packagegroup-orchestrator", "core-image-orchestrator"},
        )
        for name, recipe in self.recipes.items():
            self.assertIsNone(recipe.skipped, name)

    def test_version(self):
        [version] = [package["version"] for package in locked() if package["name"] == "orchestratord"]
        self.assertEqual(self.recipes["orchestratord"]["PV"], version)

    def test_every_crate_is_fetched_with_its_checksum(self):
        fetched = {
            (crate.parm["name"], crate.sha256_expected)
            for crate in self.recipes["orchestratord"].fetches()
            if crate.type == "crate"
        }
        crates = {(f'{crate["name"]}-{crate["version"]}', crate["checksum"]) for crate in locked() if "source" in crate}
        self.assertEqual(fetched, crates)

    def test_nothing_else_is_fetched(self):
        kinds = {fetch.type for fetch in self.recipes["orchestratord"].fetches()}
        self.assertEqual(kinds, {"crate", "file"})

    def test_the_source_is_complete(self):
        recipe = self.recipes["orchestratord"]
        recipe.unpack_local()
        source = Path(recipe["S"])
        self.assertEqual(Path(recipe["CARGO_MANIFEST_PATH"]), source / "Cargo.toml")
        if not shutil.which("cargo"):
            print("SKIPPED: cargo does not read the unpacked source, because there is no cargo.", file=sys.stderr)
            return
        done = subprocess.run(
            ["cargo", "metadata", "--no-deps", "--frozen", "--format-version=1", f"--manifest-path={source}/Cargo.toml"],
            capture_output=True, text=True, check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        missing = [target for target in re.findall(r'"src_path":"([^"]*)"', done.stdout) if "/tests/" not in target
                   and not Path(target).exists()]
        self.assertEqual(missing, [])

    def test_licence(self):
        recipe = self.recipes["orchestratord"]
        recipe.unpack_local()
        self.assertEqual(recipe["LICENSE"], "Apache-2.0")
        digest = hashlib.md5((Path(recipe["S"]) / "LICENSE").read_bytes(), usedforsecurity=False).hexdigest()
        self.assertEqual(recipe["LIC_FILES_CHKSUM"], f"file://LICENSE;md5={digest}")

    def test_it_builds_both_programs_with_the_libraries_of_the_system(self):
        recipe = self.recipes["orchestratord"]
        flags = recipe.words("CARGO_BUILD_FLAGS")
        for flag in ("--frozen", "--package=orchestratord", "--package=orchestratorctl", "--no-default-features"):
            self.assertIn(flag, flags)
        self.assertLessEqual({"xz", "zstd"}, set(recipe.words("DEPENDS")))
        self.assertEqual(recipe["ZSTD_SYS_USE_PKG_CONFIG"], "1")
        self.assertTrue(recipe.flag("ZSTD_SYS_USE_PKG_CONFIG", "export"), "the build of zstd-sys has to see it")
        for crate in ("daemon", "cli"):
            manifest = tomllib.loads((TREE / crate / "Cargo.toml").read_text(encoding="utf-8"))
            self.assertEqual(manifest["features"]["default"], ["bundled-xz"], f"{crate}: what --no-default-features turns off")

    def test_packages(self):
        recipe = self.recipes["orchestratord"]
        self.assertEqual(recipe.words("PACKAGES"), [
            "orchestratord-src", "orchestratord-dbg", "orchestratord-staticdev", "orchestratord-dev", "orchestratord-doc",
            "orchestratord-locale", "orchestratord-bash-completion", "orchestratord-mender", "orchestratord-zsh-completion",
            "orchestratord-fish-completion", "orchestratord",
        ])
        self.assertEqual(recipe.words("RDEPENDS:orchestratord"), ["dbus"])
        self.assertEqual(recipe["RDEPENDS:orchestratord-mender"], "orchestratord (= 0.1.0-r0)".replace("0.1.0", recipe["PV"]))
        for relation in ("RPROVIDES", "RCONFLICTS", "RREPLACES"):
            self.assertEqual(
                recipe.words(f"{relation}:orchestratord-mender"), ["mender-orchestrator", "mender-orchestrator-support"]
            )

    def test_every_file_is_in_its_package(self):
        owners = self.check_packages(self.recipes["orchestratord"])
        for path in ("/usr/libexec/orchestratord", "/usr/bin/orchestratorctl", "/usr/bin/mender-orchestrator"):
            self.assertIn(path, owners)
        self.assertNotIn("/var/lib/mender-orchestrator", owners)
        written = [path for path in owners if path.startswith("/usr/share/man/man1/orchestratorctl")]
        self.assertFalse(written, "nothing here can write them")

    def test_the_same_is_installed_as_by_make_install(self):
        recipe = self.recipes["orchestratord"]
        by_recipe = set(self.installed(recipe))
        with tempfile.TemporaryDirectory(prefix="yocto-check.") as place:
            built = Path(place) / "built"
            for program in ("orchestratord", "orchestratorctl"):
                executable(built / program)
            root = Path(place) / "root"
            subprocess.run(
                ["make", "-s", "-C", TREE, "install", f"DESTDIR={root}", f"BUILT={built}", "HOST_CTL=",
                 "UNIT_TYPE=notify-reload"],
                check=True, env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")},
            )
            by_make = {"/" + str(path.relative_to(root)) for path in root.rglob("*")
                       if path.is_symlink() or not path.is_dir() or not any(path.iterdir())}
        self.assertEqual(by_recipe, by_make)

    def test_service(self):
        recipe = self.recipes["orchestratord"]
        self.installed(recipe)
        self.check_service(recipe)
        unit = Path(recipe["D"]) / "usr/lib/systemd/system/orchestratord.service"
        self.assertIn("\nType=notify-reload\n", unit.read_text("utf-8"), "systemd is that of the device, not of the builder")

    def test_native_is_the_command_line_alone(self):
        recipe = self.recipes["orchestratord-native"]
        self.assertNotIn("--package=orchestratord", recipe.words("CARGO_BUILD_FLAGS"))
        self.assertEqual(set(self.installed(recipe)), {"/usr/bin/orchestratorctl"})
        self.assertEqual(recipe.words("SYSTEMD_PACKAGES"), [])

    def test_image_and_package_group(self):
        image = self.recipes["core-image-orchestrator"]
        self.assertEqual(image.words("IMAGE_INSTALL"), ["packagegroup-core-boot", "packagegroup-orchestrator"])
        self.assertEqual(image.words("ROOTFS_POSTPROCESS_COMMAND"), [])
        group = self.recipes["packagegroup-orchestrator"]
        self.assertEqual(group.words("PACKAGES"), ["packagegroup-orchestrator", "packagegroup-orchestrator-mender"])
        self.assertEqual(group.words("RDEPENDS:packagegroup-orchestrator"), ["orchestratord"])
        self.assertEqual(
            group.words("RDEPENDS:packagegroup-orchestrator-mender"), ["packagegroup-orchestrator", "orchestratord-mender"]
        )


class WithoutSystemd(Scene):
    """A distribution with another init system."""

    settings = 'DISTRO_FEATURES = "sysvinit"'

    def test_the_daemon_is_not_offered(self):
        self.assertIn("systemd", self.recipes["orchestratord"].skipped)
        self.assertIsNone(self.recipes["orchestratord-native"].skipped)


class Everything(Scene):
    """With Mender, the layer of a product, and all that can be asked for."""

    layers = [bench.CORE, bench.MENDER, LAYER, EXAMPLE]
    settings = EVERYTHING

    def test_layers_that_are_needed_are_there(self):
        for name in self.bench.collections:
            for needed in (self.bench.config.getVar(f"LAYERDEPENDS_{name}") or "").split():
                self.assertIn(needed, self.bench.collections)

    def test_state_is_on_the_data_partition(self):
        recipe = self.recipes["orchestratord"]
        self.check_packages(recipe)
        root = Path(recipe["D"])
        self.assertEqual(os.readlink(root / "var/lib/mender-orchestrator"), "/data/mender-orchestrator")
        self.assertEqual(
            (root / "usr/lib/tmpfiles.d/orchestratord-state.conf").read_text("utf-8"),
            "d /data/mender-orchestrator 0750 root root -\n",
        )
        drop_in = (root / "usr/lib/systemd/system/orchestratord.service.d/10-state.conf").read_text("utf-8")
        self.assertEqual(drop_in.splitlines(), [
            "[Unit]", "RequiresMountsFor=/data/mender-orchestrator", "",
            "[Service]", "ReadWritePaths=/data/mender-orchestrator",
        ])
        self.check_service(recipe)

    def test_man_pages_are_written_by_the_native_command_line(self):
        recipe = self.recipes["orchestratord"]
        self.assertIn("manpages", recipe.words("PACKAGECONFIG"))
        self.assertEqual(recipe.flag("PACKAGECONFIG", "manpages").split(",")[2], "orchestratord-native")
        owners = self.check_packages(recipe)
        for path in ("man/man1/orchestratorctl.1", "man/man8/orchestratord.8", "zsh/site-functions/_orchestratorctl",
                     "bash-completion/completions/orchestratorctl", "fish/vendor_completions.d/orchestratorctl.fish"):
            self.assertIn(f"/usr/share/{path}", owners)

    def test_polkit_is_recommended_where_the_distribution_has_it(self):
        recipe = self.recipes["orchestratord"]
        self.assertIn("polkit", recipe.words("PACKAGECONFIG"))
        self.assertEqual(recipe.flag("PACKAGECONFIG", "polkit").split(",")[4], "polkit")

    def test_mender(self):
        self.assertIn("mender-update", self.recipes["orchestratord"].words("RDEPENDS:orchestratord-mender"))
        self.assertIn("packagegroup-orchestrator-mender", self.recipes["core-image-orchestrator"].words("IMAGE_INSTALL"))
        self.assertEqual(self.recipes["mender"]["MENDER_DEVICE_TIER"], "system")

    def test_kernel(self):
        fragments = self.recipes["linux-yocto"].local_paths()
        self.assertEqual([path.name for path in fragments], ["orchestrator.cfg", "orchestrator-vplc.cfg"])
        for path in fragments:
            for line in path.read_text("utf-8").splitlines():
                self.assertRegex(line, r"#.*|CONFIG_[A-Z0-9_]+=[ym]")

    def test_read_only_image_is_checked(self):
        image = self.recipes["core-image-orchestrator"]
        root = Path(image["IMAGE_ROOTFS"])
        executable(root / "usr/libexec/orchestratord")
        status, said = image.run("orchestratord_check_state")
        self.assertEqual(status, 1, said)
        self.assertIn("ORCHESTRATORD_STATE_DIR", said)
        (root / "var/lib").mkdir(parents=True)
        (root / "var/lib/mender-orchestrator").symlink_to("/data/mender-orchestrator")
        self.assertEqual(image.run("orchestratord_check_state"), (0, ""))

    def test_example_of_a_product(self):
        recipe = self.recipes["press-line"]
        recipe.unpack_local()
        os.makedirs(recipe["D"], exist_ok=True)
        status, said = recipe.run("do_install")
        self.assertEqual(status, 0, said)
        owners = recipe.package_of()
        self.assertEqual(set(owners.values()), {"press-line"}, owners)
        self.assertIn("orchestratord", recipe.words("RDEPENDS:press-line"))

        root = Path(recipe["D"])
        topology = (root / "usr/share/press-line/topology.yaml").read_text("utf-8")
        ours = set(self.installed(self.recipes["orchestratord"]))
        ours.add("/usr/share/mender-orchestrator/interfaces/v1/rootfs-image")
        for types in re.findall(r"- component_type: (\S+)\n(?:    interface: (\S+)\n)?", topology):
            path = f"usr/share/mender-orchestrator/interfaces/v1/{types[1] or types[0]}"
            if f"/{path}" in ours:
                continue
            self.assertTrue(stat.S_IMODE((root / path).stat().st_mode) & 0o111, f"{path} is an executable")
        configuration = (root / "etc/mender-orchestrator/mender-orchestrator.conf").read_text("utf-8")
        for key in re.findall(r'"(/[^"]*\.pem)"', configuration):
            self.assertTrue((root / key.lstrip("/")).is_file(), key)
        for line in (root / "usr/lib/tmpfiles.d/press-line.conf").read_text("utf-8").splitlines():
            if not line.startswith("#"):
                self.assertTrue((root / line.split()[-1].lstrip("/")).is_file(), line)


class ReadOnly(Scene):
    """An image with a read-only root file system."""

    settings = SYSTEMD + '\nIMAGE_FEATURES = "read-only-rootfs"\nORCHESTRATORD_STATE_DIR = "/persist/updates"'

    def test_image_asks_for_the_check(self):
        self.assertEqual(
            self.recipes["core-image-orchestrator"].words("ROOTFS_POSTPROCESS_COMMAND"), ["orchestratord_check_state"]
        )

    def test_any_partition_will_do(self):
        recipe = self.recipes["orchestratord"]
        self.check_packages(recipe)
        self.assertEqual(os.readlink(Path(recipe["D"]) / "var/lib/mender-orchestrator"), "/persist/updates")


class Neutrality(unittest.TestCase):
    """Who only adds the layer gets the same kernel and the same Mender client as before."""

    # What names layers and files, and never goes into the hash of a task.
    IGNORED = re.compile(
        r"__.*|BB(PATH|FILES|LAYERS|INCLUDED|FILE_.*|FILES_.*)|LAYER.*|FILE|TOPDIR|BB_CACHEDIR|BBFILES_PRIORITIZED|_.*depends"
    )

    def variables(self, layers):
        """All variables of the recipes of others."""
        with tempfile.TemporaryDirectory(prefix="yocto-check.") as place, contextlib.chdir(place):
            read = bench.Bench(Path(place).resolve(), layers, SYSTEMD + '\nMENDER_FEATURES_ENABLE = "mender-image"')
            return {name: read.recipes[name].raw(self.IGNORED) for name in ("linux-yocto", "mender")}

    def test_recipes_of_others_stay_as_they_are(self):
        before = self.variables([bench.CORE, bench.MENDER])
        after = self.variables([bench.CORE, bench.MENDER, LAYER])
        changed = [
            f"{recipe}: {name}"
            for recipe, variables in after.items()
            for name in variables.keys() | before[recipe].keys()
            if variables.get(name) != before[recipe].get(name)
        ]
        self.assertEqual(changed, [])


if __name__ == "__main__":
    unittest.main()
