use proptest::prelude::*;

use super::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const OWNER: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn at(seconds: u64) -> Moment {
    Moment { at: Duration::from_secs(seconds), random: 7 }
}

/// An hour, T1 after 1800 s, T2 after 3000 s.
fn lease(address: Ipv4Addr, server: Ipv4Addr) -> Lease {
    Lease {
        address,
        length: 24,
        server,
        routes: Vec::new(),
        dns: Vec::new(),
        ntp: Vec::new(),
        domain: String::new(),
        mtu: None,
        seconds: Some(3600),
        renew: 1800,
        rebind: 3000,
    }
}

fn said(answer: Answer) -> Event {
    Event::Answered(Incoming { xid: 7, answer })
}

fn ack() -> Event {
    said(Answer::Ack(lease(ADDRESS, SERVER)))
}

fn nak(server: Ipv4Addr) -> Event {
    said(Answer::Nak { server, reason: String::new() })
}

fn sent(effects: &[Effect]) -> Vec<Outgoing> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send(message) => Some(*message),
        _ => None,
    });
    sent.collect()
}

/// What is said when nothing else happens.
fn only(effects: &[Effect]) -> Outgoing {
    match effects {
        [Effect::Send(message)] => *message,
        other => panic!("{other:?}"),
    }
}

fn bound(conflict: Conflict) -> Client {
    let mut client = Client::new(conflict, None, None);
    let discover = only(&client.step(at(0), Event::Carrier(true)));
    assert_eq!((discover.saying, discover.to, discover.requested), (Saying::Discover, None, None));
    let request = only(&client.step(at(1), said(Answer::Offer(lease(ADDRESS, SERVER)))));
    assert_eq!((request.saying, request.to, request.client), (Saying::Request, None, Ipv4Addr::UNSPECIFIED));
    assert_eq!((request.requested, request.server), (Some(ADDRESS), Some(SERVER)));
    let effects = client.step(at(2), ack());
    if conflict == Conflict::Refuse {
        assert_eq!(effects, [Effect::Probe(ADDRESS)]);
        assert_eq!((client.state(), client.held()), ("probing", None));
        client.step(at(2), Event::Clear);
    }
    assert_eq!(client.state(), "bound");
    assert_eq!(client.held().unwrap().since, at(1).at, "the time counts from the request");
    client
}

#[test]
fn a_lease_is_renewed_rebound_and_over() {
    for conflict in [Conflict::Refuse, Conflict::Warn] {
        let mut client = bound(conflict);
        assert_eq!(client.due(), Some(Duration::from_secs(1801)));
        assert_eq!(client.step(at(1800), Event::Due), []);
        let renewal = only(&client.step(at(1801), Event::Due));
        assert_eq!((renewal.to, renewal.client), (Some(SERVER), ADDRESS));
        assert_eq!((renewal.requested, renewal.server), (None, None));
        assert_eq!(client.state(), "renewing");
        // Half of what is left until T2.
        assert_eq!(client.due(), Some(Duration::from_secs(2401)));
        assert_eq!(only(&client.step(at(2401), Event::Due)).to, Some(SERVER));
        let rebinding = only(&client.step(at(3001), Event::Due));
        assert_eq!((rebinding.to, rebinding.client, client.state()), (None, ADDRESS, "rebinding"));
        assert_eq!(client.trouble(), Some(&Trouble::NotRenewed));
        let mut renewed = client.clone();
        // Any server may renew it now.
        assert!(matches!(&renewed.step(at(3002), said(Answer::Ack(lease(ADDRESS, OTHER))))[..], [Effect::Use(_)]));
        assert_eq!(
            (renewed.state(), renewed.trouble(), renewed.due()),
            ("bound", None, Some(Duration::from_secs(3001 + 1800)))
        );
        let effects = client.step(at(3601), Event::Due);
        assert_eq!(effects[0], Effect::Withdraw);
        let discover = sent(&effects)[0];
        assert_eq!((discover.saying, discover.requested), (Saying::Discover, Some(ADDRESS)));
        assert_eq!(client.held(), None);
    }
}

#[test]
fn a_renewal_is_asked_and_answered_without_a_probe() {
    let mut client = bound(Conflict::Refuse);
    client.step(at(1801), Event::Due);
    assert_eq!(client.step(at(1801), said(Answer::Ack(lease(ADDRESS, OTHER)))), [], "not the one that was asked");
    let wrong = Incoming { xid: 8, answer: Answer::Ack(lease(ADDRESS, SERVER)) };
    assert_eq!(client.step(at(1801), Event::Answered(wrong)), [], "another exchange");
    assert!(matches!(&client.step(at(1801), ack())[..], [Effect::Use(_)]));
    assert!(!client.listens());
    assert_eq!(client.step(at(1802), ack()), [], "nobody asked");
}

#[test]
fn another_address_is_probed_again_and_the_old_one_stays_until_then() {
    let mut client = bound(Conflict::Refuse);
    client.step(at(1801), Event::Due);
    let other = Ipv4Addr::new(192, 0, 2, 60);
    assert_eq!(client.step(at(1801), said(Answer::Ack(lease(other, SERVER)))), [Effect::Probe(other)]);
    assert_eq!(client.held().unwrap().lease.address, ADDRESS);
    assert!(matches!(&client.step(at(1801), Event::Clear)[..], [Effect::Use(held)] if held.lease.address == other));
}

#[test]
fn a_refusal_ends_the_lease_at_once() {
    let mut client = bound(Conflict::Refuse);
    client.step(at(1801), Event::Due);
    assert_eq!(client.step(at(1801), nak(OTHER)), [], "not the one that was asked");
    let effects = client.step(at(1801), nak(SERVER));
    assert_eq!(effects[0], Effect::Withdraw);
    // To ask for the same address would be no use.
    assert_eq!(sent(&effects)[0].requested, None);
    assert!(matches!(client.trouble(), Some(Trouble::Refused { .. })));
    // Whoever offers and refuses in turn is not asked without a break.
    for round in 0..12_u32 {
        client.step(at(2000), said(Answer::Offer(lease(ADDRESS, SERVER))));
        assert_eq!(client.step(at(2000), nak(SERVER)), []);
        let pause = client.due().unwrap().saturating_sub(at(2000).at);
        assert!(pause >= Duration::from_secs(1 << round.min(6)) && pause <= Duration::from_secs(100), "{pause:?}");
        client.step(Moment { at: client.due().unwrap(), random: 7 }, Event::Due);
    }
}

#[test]
fn an_address_that_somebody_has_is_declined() {
    let mut client = Client::new(Conflict::Refuse, None, None);
    client.step(at(0), Event::Carrier(true));
    client.step(at(0), said(Answer::Offer(lease(ADDRESS, SERVER))));
    client.step(at(0), ack());
    let decline = only(&client.step(at(0), Event::Taken(ADDRESS, OWNER)));
    assert_eq!((decline.saying, decline.client, decline.to), (Saying::Decline, Ipv4Addr::UNSPECIFIED, None));
    assert_eq!((decline.requested, decline.server), (Some(ADDRESS), Some(SERVER)));
    assert_eq!(client.state(), "failed");
    assert!(client.due().unwrap() >= Duration::from_secs(10));
    let discover = only(&client.step(at(30), Event::Due));
    assert_eq!((discover.saying, discover.requested), (Saying::Discover, None));
    // Somebody who shows up late.
    let mut client = bound(Conflict::Refuse);
    assert_eq!(client.step(at(5), Event::Taken(OTHER, OWNER)), [], "another address");
    let effects = client.step(at(5), Event::Taken(ADDRESS, OWNER));
    assert_eq!((effects[0].clone(), sent(&effects)[0].saying), (Effect::Withdraw, Saying::Decline));
    // Whoever wants to be warned only, is.
    let mut client = bound(Conflict::Warn);
    assert_eq!(client.step(at(5), Event::Taken(ADDRESS, OWNER)), []);
    assert_eq!((client.state(), client.trouble()), ("bound", Some(&Trouble::Taken(ADDRESS, OWNER))));
}

#[test]
fn after_a_cable_was_out_the_lease_is_asked_for() {
    let mut client = bound(Conflict::Refuse);
    assert_eq!(client.step(at(100), Event::Carrier(false)), []);
    assert_eq!(client.due(), Some(Duration::from_secs(3601)), "only its end counts");
    let request = only(&client.step(at(200), Event::Carrier(true)));
    assert_eq!((request.saying, request.requested, request.server), (Saying::Request, Some(ADDRESS), None));
    assert_eq!((request.client, request.to, client.state()), (Ipv4Addr::UNSPECIFIED, None, "rebinding"));
    // The same network.
    assert!(matches!(&client.clone().step(at(201), ack())[..], [Effect::Use(_)]));
    // Another one.
    let mut moved = client.clone();
    let effects = moved.step(at(201), nak(OTHER));
    assert_eq!((effects[0].clone(), sent(&effects)[0].saying), (Effect::Withdraw, Saying::Discover));
    // Another one whose server does not know us: a new lease is looked for while the old one holds.
    let mut said_last = Saying::Request;
    for _ in 0..2 {
        let due = Moment { at: client.due().unwrap(), random: 7 };
        said_last = only(&client.step(due, Event::Due)).saying;
    }
    assert_eq!((said_last, client.state()), (Saying::Discover, "rebinding"));
    assert!(client.held().is_some());
    // The lease ends while the cable is out.
    client.step(at(300), Event::Carrier(false));
    assert_eq!(client.step(at(3601), Event::Due), [Effect::Withdraw]);
    assert_eq!(only(&client.step(at(4000), Event::Carrier(true))).saying, Saying::Discover);
}

#[test]
fn what_was_leased_before_is_asked_for() {
    let mut client = Client::new(Conflict::Refuse, None, Some((ADDRESS, true)));
    let request = only(&client.step(at(0), Event::Carrier(true)));
    assert_eq!((request.saying, request.requested, client.state()), (Saying::Request, Some(ADDRESS), "acquiring"));
    assert_eq!(client.step(at(0), ack()), [Effect::Probe(ADDRESS)], "it is not on the link yet");
    let mut client = Client::new(Conflict::Refuse, None, Some((ADDRESS, false)));
    let discover = only(&client.step(at(0), Event::Carrier(true)));
    assert_eq!((discover.saying, discover.requested), (Saying::Discover, Some(ADDRESS)));
    // One that is on the link is not touched.
    let held = Held { lease: lease(ADDRESS, SERVER), since: Duration::ZERO };
    let mut client = Client::new(Conflict::Refuse, Some(held), Some((ADDRESS, true)));
    assert_eq!(only(&client.step(at(9), Event::Carrier(true))).requested, Some(ADDRESS));
    assert!(matches!(&client.step(at(9), ack())[..], [Effect::Use(_)]));
}

#[test]
fn waits_grow_as_the_rfc_has_it() {
    let mut client = Client::new(Conflict::Refuse, None, None);
    client.step(at(0), Event::Carrier(true));
    let mut now = Duration::ZERO;
    for expected in [4, 8, 16, 32, 64, 64, 64] {
        let due = client.due().unwrap();
        let wait = due.saturating_sub(now);
        let spread =
            Duration::from_secs(expected).saturating_sub(WAIT_SPREAD)..=Duration::from_secs(expected) + WAIT_SPREAD;
        assert!(spread.contains(&wait), "{wait:?} in {spread:?}");
        now = due;
        assert_eq!(only(&client.step(Moment { at: now, random: u64::MAX }, Event::Due)).saying, Saying::Discover);
    }
    assert_eq!((client.trouble(), client.state()), (Some(&Trouble::Silence), "failed"));
    // An offer whose server then falls silent is not waited for without end.
    client.step(Moment { at: now, random: 7 }, Event::Moved);
    client.step(Moment { at: now, random: 7 }, said(Answer::Offer(lease(ADDRESS, SERVER))));
    let mut requests = 1;
    while only(&client.step(Moment { at: client.due().unwrap(), random: 7 }, Event::Due)).saying == Saying::Request {
        requests += 1;
    }
    assert_eq!(requests, REQUESTS);
}

#[test]
fn a_lease_is_given_back_to_the_server_that_granted_it() {
    let mut client = bound(Conflict::Refuse);
    let effects = client.step(at(50), Event::Release);
    let release = sent(&effects)[0];
    assert_eq!((release.saying, release.client), (Saying::Release, ADDRESS));
    assert_eq!((release.to, release.server), (Some(SERVER), Some(SERVER)));
    assert_eq!(effects[1], Effect::Withdraw);
    assert_eq!((client.step(at(51), Event::Carrier(true)), client.due()), (Vec::new(), None));
}

fn event() -> impl Strategy<Value = Event> {
    let server = || prop::sample::select(vec![SERVER, OTHER]);
    let address = || (49..52_u8).prop_map(|last| Ipv4Addr::new(192, 0, 2, last));
    let lease = move || (address(), server()).prop_map(|(address, server)| lease(address, server));
    prop_oneof![
        2 => any::<bool>().prop_map(Event::Carrier),
        1 => Just(Event::Moved),
        4 => lease().prop_map(|lease| said(Answer::Offer(lease))),
        4 => lease().prop_map(|lease| said(Answer::Ack(lease))),
        2 => server().prop_map(nak),
        1 => Just(Event::Answered(Incoming { xid: 8, answer: Answer::Ack(lease_of_nobody()) })),
        6 => Just(Event::Due),
        3 => Just(Event::Clear),
        1 => address().prop_map(|address| Event::Taken(address, OWNER)),
    ]
}

fn lease_of_nobody() -> Lease {
    lease(Ipv4Addr::new(198, 51, 100, 1), OTHER)
}

proptest! {
    /// Whatever happens in whatever order: only what was granted is used, nothing outlives its end, nothing is asked
    /// without a break, and a server that answers is enough to be bound again.
    #[test]
    fn the_rules_hold_in_every_order(
        events in prop::collection::vec((event(), 0..4000_u64, any::<bool>()), 0..80), refuse: bool,
    ) {
        let conflict = if refuse { Conflict::Refuse } else { Conflict::Warn };
        let mut client = Client::new(conflict, None, None);
        let mut now = at(0);
        let (mut granted, mut used, mut probed): (Vec<Lease>, Option<Lease>, _) = (Vec::new(), None, None);
        for (event, later, on_time) in events {
            let due = client.due();
            now.at = match due {
                Some(due) if on_time => due.max(now.at),
                _ => now.at + Duration::from_secs(later),
            };
            // The clock comes first.
            for event in [Event::Due, event] {
                if let Event::Answered(Incoming { xid: 7, answer: Answer::Ack(lease) }) = &event {
                    granted.push(lease.clone());
                }
                let clear = event == Event::Clear;
                for effect in client.step(now, event.clone()) {
                    match effect {
                        Effect::Use(held) => {
                            prop_assert!(granted.contains(&held.lease), "{held:?}");
                            let known = used.as_ref().is_some_and(|used: &Lease| used.address == held.lease.address);
                            let asked = clear && probed == Some(held.lease.address);
                            prop_assert!(known || asked || !refuse, "{held:?} was not probed");
                            used = Some(held.lease);
                        }
                        Effect::Withdraw => used = None,
                        Effect::Probe(address) => probed = Some(address),
                        Effect::Send(message) => {
                            prop_assert!(message.client.is_unspecified() || used.as_ref().is_some_and(|u| u.address == message.client));
                        }
                    }
                }
                prop_assert_eq!(used.as_ref(), client.held().map(|held| &held.lease));
                prop_assert!(client.due().is_none_or(|due| due > now.at) || event != Event::Due);
            }
            prop_assert!(client.held().and_then(Held::ends_at).is_none_or(|end| end > now.at));
        }
        client.step(now, Event::Carrier(false));
        client.step(now, Event::Carrier(true));
        for _ in 0..6 {
            client.step(now, nak(SERVER));
            now.at = client.due().unwrap_or(now.at).max(now.at);
            client.step(now, Event::Due);
            client.step(now, said(Answer::Offer(lease(ADDRESS, SERVER))));
            client.step(now, ack());
            client.step(now, Event::Clear);
        }
        prop_assert!(client.held().is_some());
    }
}
