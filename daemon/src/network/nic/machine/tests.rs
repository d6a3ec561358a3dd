use proptest::prelude::*;

use super::*;
use crate::core::error::Kind;

const PARENT: Parent = Parent { index: 7, carrier: true };

fn error() -> Error {
    Error::new(Kind::AddressInUse, "x")
}

fn ready(conflict: Conflict) -> Machine {
    let mut machine = Machine::new(conflict, false);
    machine.step(Event::Namespace(true));
    assert_eq!(machine.step(Event::Parent(Some(PARENT))), [Effect::Make { parent: 7 }]);
    machine
}

#[test]
fn an_address_is_set_only_after_nobody_else_was_found_to_have_it() {
    let mut machine = ready(Conflict::Refuse);
    assert_eq!(machine.step(Event::Made { fresh: true }), [Effect::Probe]);
    assert_eq!(machine.state(), "probing");
    assert_eq!(machine.clone().step(Event::Clear), [Effect::Configure]);
    assert_eq!(machine.step(Event::Taken(error())), [Effect::Abandon, Effect::Retry { failures: 0 }]);
    assert_eq!((machine.state(), machine.error()), ("failed", Some(&error())));
    assert_eq!(machine.step(Event::RetryDue), [Effect::Make { parent: 7 }]);
    machine.step(Event::Made { fresh: true });
    assert_eq!(machine.step(Event::Failed(error())), [Effect::Abandon, Effect::Retry { failures: 1 }]);
}

#[test]
fn a_link_that_is_as_it_should_be_is_taken_over_without_a_probe() {
    let mut machine = ready(Conflict::Refuse);
    assert_eq!(machine.step(Event::Made { fresh: false }), [Effect::Configure]);
    assert_eq!(machine.step(Event::Configured), [Effect::Announce]);
    assert_eq!(machine.state(), "up");
}

#[test]
fn with_a_warning_the_address_is_set_and_the_conflict_told() {
    let mut machine = ready(Conflict::Warn);
    assert_eq!(machine.step(Event::Made { fresh: true }), [Effect::Configure]);
    assert_eq!(machine.step(Event::Configured), [Effect::Probe]);
    assert_eq!(machine.step(Event::Taken(error())), []);
    assert_eq!((machine.state(), machine.error()), ("up", Some(&error())));
}

#[test]
fn a_cable_that_is_pulled_changes_the_state_and_nothing_else() {
    let mut machine = ready(Conflict::Warn);
    machine.step(Event::Made { fresh: true });
    machine.step(Event::Configured);
    assert_eq!(machine.step(Event::Parent(Some(Parent { carrier: false, ..PARENT }))), []);
    assert_eq!(machine.state(), "no-carrier");
    // Nothing can be asked meanwhile, which takes nothing away.
    assert_eq!(machine.step(Event::Failed(error())), []);
    assert_eq!(machine.step(Event::Parent(Some(PARENT))), []);
    assert_eq!(machine.state(), "up");
}

#[test]
fn a_doubt_is_settled_without_giving_anything_up() {
    let mut machine = ready(Conflict::Refuse);
    assert_eq!(machine.step(Event::Doubt), []);
    machine.step(Event::Made { fresh: false });
    machine.step(Event::Configured);
    assert_eq!(machine.step(Event::Doubt), [Effect::Make { parent: 7 }]);
    assert_eq!(machine.step(Event::Made { fresh: false }), [Effect::Configure]);
    assert_eq!(machine.step(Event::Configured), [Effect::Announce]);
    assert_eq!(machine.state(), "up");
}

#[test]
fn what_goes_away_is_waited_for() {
    let mut machine = ready(Conflict::Warn);
    machine.step(Event::Made { fresh: true });
    machine.step(Event::Configured);
    assert_eq!(machine.step(Event::Parent(None)), [Effect::Abandon]);
    assert_eq!(machine.state(), "waiting-for-parent");
    // The parent came back under another number.
    let back = Parent { index: 9, carrier: true };
    assert_eq!(machine.step(Event::Parent(Some(back))), [Effect::Make { parent: 9 }]);
    assert_eq!(machine.step(Event::Namespace(false)), [Effect::Abandon]);
    assert_eq!(machine.state(), "waiting-for-namespace");
    assert_eq!(machine.step(Event::Namespace(true)), [Effect::Make { parent: 9 }]);
    machine.step(Event::Made { fresh: true });
    assert_eq!(machine.step(Event::LinkGone), [Effect::Abandon, Effect::Make { parent: 9 }]);
    assert_eq!(machine.step(Event::Remove), [Effect::Abandon]);
    assert_eq!(machine.step(Event::RetryDue), []);
}

#[test]
fn a_nic_whose_address_is_leased_needs_only_its_link() {
    let mut machine = Machine::new(Conflict::Refuse, true);
    machine.step(Event::Namespace(true));
    machine.step(Event::Parent(Some(PARENT)));
    assert_eq!(machine.step(Event::Made { fresh: true }), [Effect::Lease]);
    assert_eq!(machine.state(), "up");
    assert_eq!(machine.step(Event::Parent(Some(Parent { carrier: false, ..PARENT }))), []);
    assert_eq!(machine.state(), "no-carrier");
    assert_eq!(machine.step(Event::LinkGone), [Effect::Abandon, Effect::Make { parent: 7 }]);
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (0_u32..3, any::<bool>())
            .prop_map(|(index, carrier)| Event::Parent((index > 0).then_some(Parent { index, carrier }))),
        1 => any::<bool>().prop_map(Event::Namespace),
        3 => any::<bool>().prop_map(|fresh| Event::Made { fresh }),
        2 => Just(Event::Clear),
        1 => Just(Event::Taken(error())),
        3 => Just(Event::Configured),
        1 => Just(Event::Failed(error())),
        1 => Just(Event::LinkGone),
        1 => Just(Event::Doubt),
        1 => Just(Event::RetryDue),
    ]
}

proptest! {
    /// Whatever happens in whatever order: nothing is made without parent and namespace, no address is set that was not
    /// probed, and once everything is there and works, the NIC gets right.
    #[test]
    fn the_rules_hold_in_every_order(events in prop::collection::vec(event(), 0..60), refuse: bool) {
        let mut machine = Machine::new(if refuse { Conflict::Refuse } else { Conflict::Warn }, false);
        let (mut parent, mut namespace, mut fresh, mut probed) = (None, false, false, false);
        let mut pending = None;
        for event in events {
            match &event {
                Event::Parent(now) => parent = now.map(|parent| parent.index),
                Event::Namespace(there) => namespace = *there,
                Event::Made { fresh: made } if matches!(pending, Some(Effect::Make { .. })) => fresh = *made,
                Event::Clear if pending == Some(Effect::Probe) => probed = true,
                _ => {}
            }
            for effect in machine.step(event) {
                match effect {
                    Effect::Make { parent: on } => {
                        prop_assert!(namespace && parent == Some(on));
                        probed = false;
                    }
                    Effect::Configure if refuse => prop_assert!(!fresh || probed),
                    Effect::Abandon => probed = false,
                    _ => {}
                }
                pending = Some(effect);
            }
            prop_assert!(!machine.is_right() || (namespace && parent.is_some()));
        }
        machine.step(Event::Namespace(false));
        machine.step(Event::Namespace(true));
        machine.step(Event::Parent(None));
        machine.step(Event::Parent(Some(PARENT)));
        machine.step(Event::Made { fresh: true });
        machine.step(Event::Clear);
        machine.step(Event::Configured);
        prop_assert_eq!(machine.state(), "up");
    }
}
