use proptest::prelude::*;

use super::*;

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// A frame of ours, turned into one of a server.
fn answer(payload: &[u8]) -> Vec<u8> {
    let from = (THEIRS, Ipv4Addr::new(192, 0, 2, 1));
    let mut frame = wrap(from, (OURS, Ipv4Addr::new(192, 0, 2, 50)), payload);
    frame[34..38].copy_from_slice(&[0, 67, 0, 68]);
    frame
}

#[test]
fn a_frame_is_what_the_wire_wants() {
    let frame = wrap((OURS, Ipv4Addr::UNSPECIFIED), (THEIRS, Ipv4Addr::BROADCAST), b"abc");
    assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    assert_eq!(frame[14..18], [0x45, 0xc0, 0, 31]);
    assert_eq!(checksum(&[&frame[14..34]]), [0, 0]);
    assert_eq!(frame[34..40], [0, 68, 0, 67, 0, 11]);
    let pseudo_header = [&frame[26..34], &[0, 17, 0, 11]].concat();
    assert_eq!(checksum(&[&pseudo_header, &frame[34..]]), [0, 0]);
}

#[test]
fn an_answer_is_found_and_everything_else_is_not() {
    let mut padded = answer(b"abc");
    padded.extend_from_slice(&[0; 18]);
    assert_eq!(unwrap(&padded), Some((THEIRS, &b"abc"[..])));
    for (what, at, byte) in [
        ("another protocol", 13, 6),
        ("IPv6", 14, 0x65),
        ("a header that is too short", 14, 0x44),
        ("TCP", 23, 6),
        ("the sum", 24, 1),
        ("from another port", 35, 69),
        ("to another port", 37, 67),
        ("longer than the packet", 39, 12),
        ("shorter than its header", 39, 7),
    ] {
        let mut frame = answer(b"abc");
        frame[at] = byte;
        assert_eq!(unwrap(&frame), None, "{what}");
    }
    // A piece of a packet, with a sum that is right.
    let mut piece = answer(b"abc");
    piece[20] = 0x20;
    piece[24..26].fill(0);
    let sum = checksum(&[&piece[14..34]]);
    piece[24..26].copy_from_slice(&sum);
    assert_eq!(unwrap(&piece), None);
}

proptest! {
    #[test]
    fn hostile_frames_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), header: bool) {
        let mut bytes = bytes;
        if header && bytes.len() > 24 {
            bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
            bytes[23] = 17;
        }
        unwrap(&bytes);
    }
}
