B = "${WORKDIR}/build"
CARGO_MANIFEST_PATH ??= "${S}/Cargo.toml"
CARGO_BUILD_FLAGS = "--frozen"
CARGO_TARGET_SUBDIR = "stub-target/release"

cargo_do_install() {
    :
}
EXPORT_FUNCTIONS do_install
