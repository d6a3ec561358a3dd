//! Everything in the payload that has to be refused, each with its message.

use super::fixture::*;
use crate::update::artifact::Compression;

fn data(data: Vec<Raw>) -> Vec<u8> {
    Fixture::with_data(data).bytes()
}

/// A payload whose tar holds something else than what the manifest lists.
fn other_data(data: &[Raw]) -> Vec<u8> {
    Fixture::default().bytes_with_data(compress(&tar(data), Compression::Gzip))
}

#[test]
fn names_and_kinds() {
    let named = |name: &str| other_data(&[raw(name, "x")]);
    let bad_name = |name: &str| {
        format!(
            "The Artifact is malformed: \"{name}\" in \"data/0000.tar.gz\" has a name that no payload file can have (letters, digits, \"_\", \"-\", \".\" and \",\")."
        )
    };
    let kind = |kind| other_data(&[raw_kind("firmware.bin", kind, "")]);
    let bad_kind = |kind: &str| {
        format!(
            "The Artifact is malformed: \"firmware.bin\" in \"data/0000.tar.gz\" is {kind}; only regular files are allowed."
        )
    };
    let file = raw("firmware.bin", "firmware");
    assert_refused([
        ("parent directory", named("../x"), &bad_name("../x")),
        ("just the parent", named(".."), &bad_name("..")),
        ("dot", named("."), &bad_name(".")),
        ("absolute", named("/etc/passwd"), &bad_name("/etc/passwd")),
        ("sub-directory", named("a/b"), &bad_name("a/b")),
        ("dot in front", named("./firmware.bin"), &bad_name("./firmware.bin")),
        ("empty", named(""), &bad_name("")),
        ("blank", named("a b"), &bad_name("a b")),
        ("shell", named("$(reboot)"), &bad_name("$(reboot)")),
        ("umlaut", named("ä"), &bad_name("ä")),
        ("directory", kind(b'5'), &bad_kind("a directory")),
        ("symbolic link", kind(b'2'), &bad_kind("a symbolic link")),
        ("hard link", kind(b'1'), &bad_kind("a hard link")),
        ("character device", kind(b'3'), &bad_kind("a character device")),
        ("block device", kind(b'4'), &bad_kind("a block device")),
        ("FIFO", kind(b'6'), &bad_kind("a FIFO")),
        ("GNU sparse file", kind(b'S'), &bad_kind("a sparse file")),
        ("unknown kind", kind(b'Z'), &bad_kind("of an unknown type")),
        (
            "twice",
            other_data(&[file.clone(), file]),
            "The Artifact is malformed: \"firmware.bin\" in \"data/0000.tar.gz\" occurs twice.",
        ),
        (
            "not in the manifest",
            named("more"),
            "The Artifact is malformed: \"more\" in \"data/0000.tar.gz\" is not listed in \"manifest\".",
        ),
        (
            "only in the manifest",
            other_data(&[raw("notes", "")]),
            "The Artifact is incomplete: it has no \"firmware.bin\" in \"data/0000.tar\", which \"manifest\" lists.",
        ),
        (
            "name by PAX",
            data(vec![raw_kind("x", b'x', "13 path=../x\n"), raw("firmware.bin", "firmware")]),
            &bad_name("../x"),
        ),
        (
            "size that no file has",
            other_data(&[raw_kind("x", b'x', "28 size=9999999999999999999\n"), raw("firmware.bin", "firmware")]),
            "The Artifact is malformed: \"firmware.bin\" in \"data/0000.tar.gz\" claims a size that no file can have.",
        ),
    ]);
}

#[test]
fn content() {
    let fixture = Fixture::default();
    let plain = tar(&fixture.data);
    let packed = fixture.data_tar();
    let with = |compression, data: Vec<u8>| {
        Fixture { data_compression: compression, ..Fixture::default() }.bytes_with_data(data)
    };
    let gzip = |data: Vec<u8>| with(Compression::Gzip, data);
    let mut wrong_crc = packed.clone();
    let end = wrong_crc.len();
    wrong_crc[end - 8] ^= 1;
    let expected = sha256(b"firmware");
    let xz = compress(&plain, Compression::Xz);
    let zstd = compress(&plain, Compression::Zstd);
    assert_refused([
        (
            "other content",
            other_data(&[raw("firmware.bin", "firmwarf"), raw("notes", "")]),
            &format!(
                "The Artifact is damaged: \"firmware.bin\" in \"data/0000.tar.gz\" has SHA-256 {}, but the manifest says {expected}.",
                sha256(b"firmwarf")
            ),
        ),
        (
            "less content",
            other_data(&[raw("firmware.bin", ""), raw("notes", "")]),
            &format!(
                "The Artifact is damaged: \"firmware.bin\" in \"data/0000.tar.gz\" has SHA-256 {}, but the manifest says {expected}.",
                sha256(b"")
            ),
        ),
        (
            "content where none is expected",
            other_data(&[raw("firmware.bin", "firmware"), raw("notes", "x")]),
            &format!(
                "The Artifact is damaged: \"notes\" in \"data/0000.tar.gz\" has SHA-256 {}, but the manifest says {}.",
                sha256(b"x"),
                sha256(b"")
            ),
        ),
        (
            "wrong CRC of gzip",
            gzip(wrong_crc),
            "The Artifact is damaged: \"data/0000.tar.gz\" cannot be decompressed: corrupt gzip stream does not have a matching checksum.",
        ),
        (
            "truncated gzip",
            gzip(packed[..packed.len() - 4].to_vec()),
            "The Artifact is damaged: \"data/0000.tar.gz\" cannot be decompressed: unexpected end of file.",
        ),
        (
            "bytes after gzip",
            gzip([packed.as_slice(), b"garbage that is no gzip"].concat()),
            "The Artifact is damaged: \"data/0000.tar.gz\" cannot be decompressed: invalid gzip header.",
        ),
        (
            "truncated xz",
            with(Compression::Xz, xz[..xz.len() - 4].to_vec()),
            "The Artifact is damaged: \"data/0000.tar.xz\" cannot be decompressed: premature eof.",
        ),
        (
            "bytes after xz",
            with(Compression::Xz, [xz.as_slice(), b"garbage of a block or so"].concat()),
            "The Artifact is damaged: \"data/0000.tar.xz\" cannot be decompressed: lzma data error.",
        ),
        (
            "truncated zstd",
            with(Compression::Zstd, zstd[..zstd.len() - 4].to_vec()),
            "The Artifact is damaged: \"data/0000.tar.zst\" cannot be decompressed: incomplete frame.",
        ),
        (
            "bytes after zstd",
            with(Compression::Zstd, [zstd.as_slice(), b"garbage"].concat()),
            "The Artifact is damaged: \"data/0000.tar.zst\" cannot be decompressed: Unknown frame descriptor.",
        ),
        (
            "no compression where the name says gzip",
            gzip(plain.clone()),
            "The Artifact is malformed: \"data/0000.tar.gz\" is named for gzip compression, but its content has no compression that is known.",
        ),
        (
            "nothing where the name says gzip",
            gzip(vec![]),
            "The Artifact is malformed: \"data/0000.tar.gz\" is named for gzip compression, but its content has no compression that is known.",
        ),
        (
            "nothing at all",
            with(Compression::None, vec![]),
            "The Artifact is truncated: it ends inside \"data/0000.tar\".",
        ),
        (
            "no end marker",
            with(Compression::None, tar_without_end(&fixture.data)),
            "The Artifact is truncated: it ends inside \"data/0000.tar\".",
        ),
        (
            "bytes after the end marker",
            with(Compression::None, [plain.as_slice(), &[0; 512], b"x"].concat()),
            "The Artifact is malformed: \"data/0000.tar\" has bytes other than zero after its end.",
        ),
        (
            "end inside a file",
            with(Compression::None, plain[..516].to_vec()),
            "The Artifact is truncated: it ends inside \"firmware.bin\" in \"data/0000.tar\".",
        ),
        (
            "a bomb of zeros after the end marker",
            gzip(compress(&[plain.as_slice(), &vec![0; 2 * 1024 * 1024]].concat(), Compression::Gzip)),
            "The Artifact is malformed: \"data/0000.tar.gz\" has more than 1048576 zero bytes after its end.",
        ),
    ]);
}

#[test]
fn xz_beyond_the_memory_limit() {
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
    options.dict_size(256 * 1024 * 1024);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let stream = liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc64).unwrap();
    let fixture = Fixture { data_compression: Compression::Xz, ..Fixture::default() };
    let mut packed = Vec::new();
    let plain = tar(&fixture.data);
    std::io::copy(&mut liblzma::bufread::XzEncoder::new_stream(plain.as_slice(), stream), &mut packed).unwrap();
    assert_eq!(
        refusal(&fixture.bytes_with_data(packed)),
        "The Artifact is damaged: \"data/0000.tar.xz\" cannot be decompressed: memory limit reached."
    );
}

#[test]
fn zstd_beyond_the_window_limit() {
    let fixture = Fixture { data_compression: Compression::Zstd, ..Fixture::default() };
    let frame = |exponent: u8| {
        // Magic number, no checksum and no size, window of 2^(10 + exponent), then one raw block with everything.
        let plain = tar(&fixture.data);
        let block = u32::try_from(plain.len()).unwrap() << 3 | 1;
        [&[0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3], &block.to_le_bytes()[..3], &plain].concat()
    };
    assert!(read(&fixture.bytes_with_data(frame(17))).is_ok());
    assert_eq!(
        refusal(&fixture.bytes_with_data(frame(18))),
        "The Artifact is damaged: \"data/0000.tar.zst\" cannot be decompressed: Frame requires too much memory for decoding."
    );
}
