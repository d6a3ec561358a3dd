use super::*;

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
const WANTED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

#[test]
fn whoever_has_or_wants_the_address_is_a_conflict() {
    let found = |frame: &[u8; FRAME]| conflict(frame, OURS, &[OTHER, WANTED]);
    let mut reply = request(THEIRS, WANTED, Ipv4Addr::UNSPECIFIED);
    reply[21] = 2;
    assert_eq!(found(&reply), Some((WANTED, THEIRS)), "an answer");
    assert_eq!(found(&request(THEIRS, WANTED, WANTED)), Some((WANTED, THEIRS)), "an announcement");
    assert_eq!(found(&request(THEIRS, Ipv4Addr::UNSPECIFIED, WANTED)), Some((WANTED, THEIRS)), "a probe");
}

#[test]
fn everything_else_is_none() {
    let stranger = Ipv4Addr::new(192, 0, 2, 99);
    assert_eq!(conflict(&request(OURS, WANTED, WANTED), OURS, &[WANTED]), None, "our own");
    assert_eq!(conflict(&request(THEIRS, stranger, WANTED), OURS, &[WANTED]), None, "somebody asks for us");
    assert_eq!(conflict(&request(THEIRS, Ipv4Addr::UNSPECIFIED, stranger), OURS, &[WANTED]), None);
    let mut mangled = request(THEIRS, WANTED, WANTED);
    mangled[18] = 8;
    assert_eq!(conflict(&mangled, OURS, &[WANTED]), None, "no Ethernet address");
}

#[test]
fn random_times_stay_within_their_limit() {
    for _ in 0..100 {
        assert!(up_to(PROBE_WAIT) <= PROBE_WAIT);
    }
}
