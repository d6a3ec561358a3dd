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

/// The kernel itself says what passes: a socket takes the filter, whatever it is for.
#[test]
fn the_filter_lets_pass_what_is_about_our_addresses() {
    let stranger = Ipv4Addr::new(192, 0, 2, 99);
    for count in [0, 1, 2, 16] {
        let ours: Vec<Ipv4Addr> = (0..count).map(|last| Ipv4Addr::new(192, 0, 2, last)).collect();
        let (to, from) = std::os::unix::net::UnixDatagram::pair().unwrap();
        from.set_nonblocking(true).unwrap();
        SockRef::from(&from).attach_filter(&only_about(&ours)).unwrap();
        let passes = |sender, target| {
            // What a filter drops, the sender of such a socket is told of.
            to.send(&request(THEIRS, sender, target)).ok();
            from.recv(&mut [0; FRAME]).is_ok_and(|length| length == FRAME)
        };
        for address in &ours {
            assert!(passes(*address, stranger) && passes(Ipv4Addr::UNSPECIFIED, *address), "{address} of {count}");
        }
        assert!(!passes(stranger, Ipv4Addr::new(192, 0, 3, 1)) && !passes(Ipv4Addr::UNSPECIFIED, stranger), "{count}");
    }
}
