use proptest::prelude::*;

use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

/// An answer of this type with options besides.
fn answer(kind: u8, more: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..3].copy_from_slice(&[2, 1, 6]);
    bytes[4..8].copy_from_slice(&[0, 0, 0, 9]);
    bytes[16..20].copy_from_slice(&[192, 0, 2, 50]);
    bytes[28..34].copy_from_slice(&MAC.0);
    bytes[236..].copy_from_slice(&MAGIC);
    bytes.extend_from_slice(&[TYPE, 1, kind, 54, 4, 192, 0, 2, 1, 51, 4, 0, 0, 14, 16, 1, 4, 255, 255, 255, 0]);
    bytes.extend_from_slice(more);
    bytes.push(END);
    bytes
}

fn lease(bytes: &[u8]) -> Lease {
    match Incoming::decode(bytes, MAC).unwrap().answer {
        Answer::Offer(lease) | Answer::Ack(lease) => lease,
        nak @ Answer::Nak { .. } => panic!("{nak:?}"),
    }
}

#[test]
fn a_message_says_what_the_rfc_wants_said() {
    let message = Outgoing {
        saying: Saying::Discover,
        xid: 0x0102_0304,
        seconds: 5,
        client: Ipv4Addr::UNSPECIFIED,
        requested: Some(Ipv4Addr::new(192, 0, 2, 50)),
        server: None,
        to: None,
    };
    let identity = Identity { mac: MAC, host_name: Some("press-7".to_owned()) };
    let bytes = message.encode(&identity);
    assert!(bytes.len() >= 300);
    assert_eq!(bytes[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 5, 0, 0]);
    assert_eq!(bytes[28..34], MAC.0);
    let options = options(&bytes[..HEADER], &bytes[HEADER..]);
    assert_eq!(options[&TYPE], [1]);
    assert_eq!(options[&61], [1, 2, 0, 0, 0, 0, 7]);
    assert_eq!(options[&50], [192, 0, 2, 50]);
    assert_eq!(options[&12], b"press-7");
    assert_eq!(options[&PARAMETERS], [1, 121, 3, 6, 15, 26, 42, 51, 54, 58, 59]);
    // The end says no more than it needs to (RFC 2131, table 5).
    let server = Some(Ipv4Addr::new(192, 0, 2, 1));
    for saying in [Saying::Decline, Saying::Release] {
        let bytes = Outgoing { saying, server, ..message }.encode(&identity);
        let options = super::options(&bytes[..HEADER], &bytes[HEADER..]);
        assert_eq!(options.keys().copied().collect::<Vec<_>>(), [50, TYPE, 54, 61]);
    }
}

#[test]
fn answers_are_told_apart() {
    let read = |kind| Incoming::decode(&answer(kind, &[]), MAC).map(|incoming| incoming.answer);
    assert!(matches!(read(2), Some(Answer::Offer(_))));
    assert!(matches!(read(5), Some(Answer::Ack(_))));
    let words = b"\x38\x0dgo \"away\"!\n.\xff";
    let Some(Incoming { xid: 9, answer: Answer::Nak { server, reason } }) = Incoming::decode(&answer(6, words), MAC)
    else {
        panic!("a refusal")
    };
    assert_eq!((server, reason.as_str()), (Ipv4Addr::new(192, 0, 2, 1), "go away!.\u{fffd}"));
    for kind in [0, 1, 3, 4, 7, 8, 255] {
        assert_eq!(read(kind), None, "{kind}");
    }
}

#[test]
fn what_is_not_for_us_is_not_heard() {
    for (at, byte) in [(0, 1), (1, 6), (2, 7), (33, 8), (236, 98)] {
        let mut bytes = answer(5, &[]);
        bytes[at] = byte;
        assert_eq!(Incoming::decode(&bytes, MAC), None, "{at}");
    }
    assert_eq!(Incoming::decode(&answer(5, &[])[..HEADER], MAC), None);
}

#[test]
fn options_in_parts_and_in_the_name_fields_are_put_together() {
    let parts = [6, 2, 192, 0, 6, 2, 2, 3];
    assert_eq!(lease(&answer(5, &parts)).dns, [Ipv4Addr::new(192, 0, 2, 3)]);
    let mut bytes = answer(5, &[OVERLOAD, 1, 3]);
    bytes[BOOT_FILE][..7].copy_from_slice(&[3, 4, 192, 0, 2, 9, END]);
    bytes[SERVER_NAME][..7].copy_from_slice(&[42, 4, 192, 0, 2, 4, END]);
    let read = lease(&bytes);
    assert_eq!(
        (read.gateway(), read.ntp.as_slice()),
        (Some(Ipv4Addr::new(192, 0, 2, 9)), &[Ipv4Addr::new(192, 0, 2, 4)][..])
    );
}

proptest! {
    #[test]
    fn hostile_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        Incoming::decode(&bytes, MAC);
    }

    /// Like the above, but past the checks of the header.
    #[test]
    fn hostile_options_are_read_or_refused(
        kind in 1..8_u8, more in prop::collection::vec(any::<u8>(), 0..1200), cut in 0..1500_usize,
        names in prop::collection::vec(any::<u8>(), 192),
    ) {
        let mut bytes = answer(kind, &more);
        bytes[44..236].copy_from_slice(&names);
        Incoming::decode(&bytes, MAC);
        Incoming::decode(&bytes[..cut.min(bytes.len())], MAC);
    }
}
