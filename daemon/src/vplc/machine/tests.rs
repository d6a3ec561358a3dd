use super::*;
use crate::vplc::spec::{Restart, Unhealthy};

/// An engine as simple as can be, which does what the machine says.
struct World {
    machine: Machine,
    sight: Sight,
    now: Duration,
    pids: i32,
    /// Everything that was done, in its order.
    done: Vec<Effect>,
    /// The effect with this number fails, once.
    fails: Option<usize>,
    pause: bool,
    proof: bool,
    /// It is waited for that the runtime gets healthy.
    awaits: bool,
    latch: Option<Latch>,
    vanished: bool,
}

fn rules(wanted: Wanted) -> Rules {
    let restart = Restart { limit: 3, window: Duration::from_mins(10), ..Restart::default() };
    let (unhealthy, health_limit) = (Unhealthy::Report, Duration::from_mins(1));
    Rules { wanted, generation: 1, restart, unhealthy, latch: None, claim: None, trial: false, health_limit }
}

impl World {
    fn new(wanted: Wanted) -> Self {
        Self::over(Sight::default(), rules(wanted))
    }

    fn over(sight: Sight, rules: Rules) -> Self {
        Self {
            machine: Machine::new(rules),
            sight,
            now: Duration::ZERO,
            pids: 100,
            done: Vec::new(),
            fails: None,
            pause: false,
            proof: false,
            awaits: false,
            latch: None,
            vanished: false,
        }
    }

    /// Tells the machine, and does what it says until it rests or pauses.
    fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        let mut steps = 0;
        while let Some(event) = events.pop_front() {
            for effect in self.machine.step(event) {
                steps += 1;
                assert!(steps < 1000, "it goes round in circles: {:?}", self.done);
                events.extend(self.act(effect));
            }
        }
    }

    fn start(&mut self) {
        self.tell(Event::Turn);
        self.tell(Event::Engine(true));
    }

    /// Pauses are over as often as there is one.
    fn settle(&mut self) {
        for _ in 0..20 {
            if std::mem::take(&mut self.proof) {
                self.tell(Event::Proved);
            }
            if !std::mem::take(&mut self.pause) {
                return;
            }
            self.tell(Event::PauseOver);
        }
        panic!("it pauses for ever: {:?}", self.done);
    }

    fn act(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Look => return Some(Event::Seen(self.sight.clone(), self.now)),
            Effect::Pause(_) | Effect::Retry { .. } => {
                self.pause = true;
                return None;
            }
            Effect::Prove(_) => {
                self.proof = true;
                return None;
            }
            Effect::Await(_) => {
                self.awaits = true;
                return None;
            }
            Effect::KeepLatch(latch) => {
                self.latch = Some(latch);
                return None;
            }
            Effect::Vanish => {
                self.vanished = true;
                return None;
            }
            Effect::ReadLines => return Some(Event::Lines(vec!["last".to_owned()])),
            _ => {}
        }
        self.done.push(effect.clone());
        if self.fails == Some(self.done.len() - 1) {
            return Some(Event::Failed(Error::new(Kind::EngineFailed, "It failed.")));
        }
        self.pids += 1;
        let running = Condition::Running { pid: self.pids, wellness: Wellness::Unknown };
        let exited = Condition::Exited(Exit { code: 0, out_of_memory: false });
        let generation = self.machine.rules.generation;
        let id = self.pids.to_string();
        let made = |generation| Some(Container { id, generation, condition: Condition::Created });
        let set = |container: &mut Option<Container>, condition| container.as_mut().unwrap().condition = condition;
        match effect {
            Effect::CreateHolder => self.sight.holder = made(generation),
            Effect::CreateRuntime => self.sight.runtime = made(generation),
            Effect::StartHolder => set(&mut self.sight.holder, running),
            Effect::StartRuntime => {
                assert!(pid(self.sight.holder.as_ref()).is_some(), "a runtime without its namespace");
                set(&mut self.sight.runtime, running);
            }
            Effect::StopRuntime => set(&mut self.sight.runtime, exited),
            Effect::StopHolder => set(&mut self.sight.holder, exited),
            Effect::RemoveRuntime => self.sight.runtime = None,
            Effect::RemoveHolder => self.sight.holder = None,
            _ => {}
        }
        Some(Event::Done)
    }

    /// The runtime ends by itself.
    fn crash(&mut self, code: i64) {
        let exit = Exit { code, out_of_memory: false };
        self.sight.runtime.as_mut().unwrap().condition = Condition::Exited(exit);
        self.tell(Event::Stirred);
    }

    fn count(&self, effect: &Effect) -> usize {
        self.done.iter().filter(|done| *done == effect).count()
    }

    fn running(&self) -> bool {
        pid(self.sight.runtime.as_ref()).is_some()
    }
}

#[test]
fn nics_are_there_before_the_runtime_is_started() {
    let mut world = World::new(Wanted::Running);
    world.start();
    let names = ["FetchImage", "CreateHolder", "StartHolder", "AttachNics", "CreateRuntime", "StartRuntime"];
    let done: Vec<String> = world.done.iter().map(|effect| format!("{effect:?}")).collect();
    assert!(done.iter().zip(names).all(|(done, name)| done.starts_with(name)) && done.len() == names.len(), "{done:?}");
    assert_eq!(world.machine.rest("a"), None, "it may still end at once");
    world.settle();
    assert_eq!(world.machine.rest("a"), Some(Ok(())));
}

#[test]
fn nothing_is_started_before_its_turn_or_without_an_engine() {
    let mut world = World::new(Wanted::Running);
    world.tell(Event::Engine(true));
    assert!(world.done.is_empty());
    assert_eq!(world.machine.rest("a"), None);
    world.tell(Event::Engine(false));
    world.tell(Event::Turn);
    assert!(world.done.is_empty());
    world.tell(Event::Engine(true));
    assert!(world.running());
}

#[test]
fn what_runs_is_adopted_and_never_stopped() {
    let mut first = World::new(Wanted::Running);
    first.start();
    // A new daemon, which has seen nothing yet; its turn matters only to those that do not run.
    let mut world = World::over(first.sight.clone(), rules(Wanted::Running));
    world.tell(Event::Engine(true));
    assert!(matches!(world.done[..], [Effect::AttachNics { .. }]), "{:?}", world.done);
    assert_eq!(world.sight, first.sight);
    // Nor when the engine goes and comes, or its holder was killed: then the NICs follow the runtime.
    world.sight.holder = None;
    world.tell(Event::Engine(false));
    world.tell(Event::Engine(true));
    let Condition::Running { pid, .. } = world.sight.runtime.as_ref().unwrap().condition else { panic!() };
    assert_eq!(world.done.last(), Some(&Effect::AttachNics { pid }));
    assert_eq!(world.count(&Effect::StopRuntime), 0);
    // With the next start, once it is its turn, it gets a holder again.
    world.tell(Event::Turn);
    world.crash(1);
    world.settle();
    assert!(world.running() && world.sight.holder.is_some());
}

/// Whatever fails, the next try makes it right, and what failed is told.
#[test]
fn a_failure_at_any_step_is_told_and_made_good() {
    for fails in 0..6 {
        let mut world = World::new(Wanted::Running);
        world.fails = Some(fails);
        world.start();
        assert!(matches!(world.machine.rest("a"), Some(Err(error)) if error.kind == Kind::EngineFailed), "{fails}");
        world.settle();
        world.settle();
        assert!(world.running(), "{fails}");
        assert_eq!(world.machine.rest("a"), Some(Ok(())), "{fails}");
        // Or it is given up, and then nothing stays.
        let mut world = World::new(Wanted::Running);
        world.fails = Some(fails);
        world.start();
        world.tell(Event::Rules { rules: rules(Wanted::Gone { keep_data: false }), nics: false });
        world.settle();
        assert!(world.vanished && world.sight == Sight::default(), "{fails}: {:?}", world.done);
        assert!(world.done.contains(&Effect::DetachNics) && world.done.contains(&Effect::RemoveData));
    }
}

#[test]
fn a_removal_that_fails_anywhere_is_tried_again() {
    for fails in 6..12 {
        let mut world = World::new(Wanted::Running);
        world.start();
        world.fails = Some(fails);
        world.tell(Event::Rules { rules: rules(Wanted::Gone { keep_data: false }), nics: false });
        world.settle();
        assert!(world.vanished && world.sight == Sight::default(), "{fails}: {:?}", world.done);
    }
}

#[test]
fn too_many_ends_within_the_window_are_the_last() {
    let mut world = World::new(Wanted::Running);
    world.start();
    for _ in 0..2 {
        world.crash(7);
        world.settle();
        assert!(world.running());
    }
    world.crash(7);
    world.settle();
    assert!(!world.running());
    let latch = Latch { exit_code: 7, out_of_memory: false, ends: 3, lines: vec!["last".to_owned()] };
    assert_eq!(world.latch, Some(latch.clone()));
    assert!(matches!(world.machine.rest("a"), Some(Err(error)) if error.kind == Kind::VplcFailed));
    assert_eq!((world.machine.state(), world.machine.restarts()), ("failed", 2));
    // It holds when everything else has changed, until somebody resets it.
    world.now += Duration::from_hours(1);
    world.tell(Event::Engine(false));
    world.tell(Event::Engine(true));
    assert!(!world.running());
    world.tell(Event::Rules { rules: rules(Wanted::Running), nics: false });
    assert!(world.running());
}

#[test]
fn ends_far_apart_are_no_reason_to_give_up() {
    let mut world = World::new(Wanted::Running);
    world.start();
    for _ in 0..10 {
        world.now += Duration::from_mins(6);
        world.crash(1);
        world.settle();
        assert!(world.running());
    }
}

#[test]
fn the_policy_says_which_end_is_the_last() {
    for (policy, code, again) in [
        (Policy::Always, 0, true),
        (Policy::Always, 1, true),
        (Policy::OnFailure, 0, false),
        (Policy::OnFailure, 1, true),
        (Policy::Never, 0, false),
        (Policy::Never, 1, false),
    ] {
        let mut rules = rules(Wanted::Running);
        rules.restart.policy = policy;
        let mut world = World::over(Sight::default(), rules);
        world.start();
        world.crash(code);
        world.settle();
        assert_eq!(world.running(), again, "{policy:?} {code}");
    }
}

#[test]
fn a_stop_is_honoured_and_takes_it_off_the_network() {
    let mut world = World::new(Wanted::Running);
    world.start();
    world.tell(Event::Rules { rules: rules(Wanted::Stopped), nics: false });
    assert!(world.done.ends_with(&[Effect::StopRuntime, Effect::DetachNics, Effect::StopHolder]), "{:?}", world.done);
    assert_eq!((world.machine.state(), world.machine.rest("a")), ("stopped", Some(Ok(()))));
    assert_eq!(world.machine.restarts(), 0);
    // A new daemon starts nothing.
    let mut later = World::over(world.sight.clone(), rules(Wanted::Stopped));
    later.start();
    assert_eq!(later.done, [Effect::DetachNics]);
    // And it starts with the containers that it has.
    later.tell(Event::Rules { rules: rules(Wanted::Running), nics: false });
    assert!(later.running() && later.count(&Effect::CreateRuntime) == 0);
}

#[test]
fn a_restart_leaves_holder_and_nics_alone() {
    let mut world = World::new(Wanted::Running);
    world.start();
    let (before, length) = (world.sight.holder.clone(), world.done.len());
    world.tell(Event::Rules { rules: rules(Wanted::Running), nics: false });
    world.tell(Event::Again);
    // The image was looked for when it was made, so the runtime is stopped at once.
    assert_eq!(world.done[length..], [Effect::StopRuntime, Effect::StartRuntime]);
    assert_eq!(world.sight.holder, before);
    world.settle();
    assert_eq!((world.machine.restarts(), world.machine.rest("a")), (0, Some(Ok(()))));
}

#[test]
fn another_generation_takes_the_place_of_the_old_one_once_its_image_is_there() {
    let mut world = World::new(Wanted::Running);
    world.start();
    let length = world.done.len();
    world.fails = Some(length);
    world.tell(Event::Rules { rules: Rules { generation: 2, ..rules(Wanted::Running) }, nics: false });
    assert_eq!(world.done[length..], [Effect::FetchImage]);
    assert!(world.running(), "the old one runs while the new one cannot");
    world.settle();
    assert!(world.running());
    assert!(world.sight.runtime.as_ref().is_some_and(|runtime| runtime.generation == 2));
    assert!(world.sight.holder.as_ref().is_some_and(|holder| holder.generation == 2));
}

#[test]
fn other_nics_are_attached_without_a_restart() {
    let mut world = World::new(Wanted::Running);
    world.start();
    let length = world.done.len();
    world.tell(Event::Rules { rules: rules(Wanted::Running), nics: true });
    assert!(matches!(world.done[length..], [Effect::AttachNics { .. }]), "{:?}", world.done);
}

#[test]
fn an_ill_runtime_is_restarted_only_if_that_is_wanted() {
    for unhealthy in [Unhealthy::Report, Unhealthy::Restart] {
        let mut world = World::over(Sight::default(), Rules { unhealthy, ..rules(Wanted::Running) });
        world.start();
        let Condition::Running { pid, .. } = world.sight.runtime.as_ref().unwrap().condition else { panic!() };
        let ill = Condition::Running { pid, wellness: Wellness::Unhealthy };
        world.sight.runtime.as_mut().unwrap().condition = ill;
        world.tell(Event::Stirred);
        world.settle();
        assert_eq!(world.count(&Effect::StopRuntime), usize::from(unhealthy == Unhealthy::Restart));
        assert_eq!(world.machine.restarts(), u32::from(unhealthy == Unhealthy::Restart));
        assert!(world.running());
    }
}

/// Rules of a vPLC whose runtime is claimed; this container was.
fn claiming(container: Option<&str>) -> Rules {
    Rules { claim: Some(Claim { container: container.map(ToOwned::to_owned) }), ..rules(Wanted::Running) }
}

/// The names of what was done from this one on.
fn names(done: &[Effect]) -> Vec<String> {
    let name = |effect| format!("{effect:?}").split([' ', '(']).next().unwrap_or_default().to_owned();
    done.iter().map(name).collect()
}

#[test]
fn a_runtime_is_claimed_before_it_is_on_a_network_and_once_only() {
    let mut world = World::over(Sight::default(), claiming(None));
    world.start();
    let made = ["FetchImage", "CreateHolder", "StartHolder", "DetachNics", "CreateRuntime", "StartRuntime"];
    assert_eq!(names(&world.done), [&made[..], &["Claim", "AttachNics"]].concat());
    assert!(world.machine.has_programs());
    world.settle();
    assert_eq!(world.machine.rest("a"), Some(Ok(())));
    // A crash and a restart are none of the NICs, and the container is the same one.
    let length = world.done.len();
    world.crash(1);
    world.settle();
    assert_eq!(names(&world.done[length..]), ["StartRuntime"]);
    // A new container is claimed anew, off the network, although the holder is the same one.
    let length = world.done.len();
    world.sight.runtime = None;
    world.tell(Event::Stirred);
    world.settle();
    let done = names(&world.done[length..]);
    assert_eq!(done, ["DetachNics", "CreateRuntime", "StartRuntime", "Claim", "AttachNics"]);
}

#[test]
fn without_its_claim_a_runtime_gets_no_nics() {
    let mut world = World::over(Sight::default(), claiming(None));
    world.fails = Some(6);
    world.start();
    assert_eq!(names(&world.done[6..]), ["Claim"]);
    assert!(matches!(world.machine.rest("a"), Some(Err(_))));
    assert!(!world.machine.has_programs());
    world.settle();
    assert_eq!(names(&world.done[6..]), ["Claim", "Claim", "AttachNics"]);
    assert_eq!(world.machine.rest("a"), Some(Ok(())));
    // Or it is given up, and then nothing stays.
    let mut world = World::over(Sight::default(), claiming(None));
    world.fails = Some(6);
    world.start();
    world.tell(Event::Rules { rules: rules(Wanted::Gone { keep_data: false }), nics: false });
    world.settle();
    assert!(world.vanished && world.sight == Sight::default(), "{:?}", world.done);
}

#[test]
fn a_daemon_that_ends_around_the_claim_makes_it_good() {
    let mut first = World::over(Sight::default(), claiming(None));
    first.fails = Some(6);
    first.start();
    let mut second = World::over(first.sight.clone(), claiming(None));
    second.start();
    assert_eq!(names(&second.done), ["Claim", "AttachNics"]);
    // What was claimed is adopted as it runs.
    let container = first.sight.runtime.as_ref().unwrap().id.clone();
    let mut third = World::over(first.sight.clone(), claiming(Some(&container)));
    third.start();
    assert_eq!(names(&third.done), ["AttachNics"]);
    // And what was made but never started still has to be claimed.
    let mut fourth = World::over(first.sight.clone(), claiming(None));
    fourth.sight.runtime.as_mut().unwrap().condition = Condition::Created;
    fourth.start();
    assert_eq!(names(&fourth.done), ["DetachNics", "StartRuntime", "Claim", "AttachNics"]);
}

/// A change that is on trial: what ran before is of the generation 1.
fn trial() -> Rules {
    Rules { generation: 2, trial: true, ..claiming(None) }
}

#[test]
fn what_is_on_trial_proves_its_plc_last() {
    let mut world = World::new(Wanted::Running);
    world.start();
    let length = world.done.len();
    world.tell(Event::Rules { rules: trial(), nics: false });
    assert_eq!(world.machine.rest("a"), None, "the PLC is not proved yet");
    world.settle();
    let done = names(&world.done[length..]);
    assert!(done.ends_with(&["StartRuntime", "Claim", "AttachNics", "ProvePlc"].map(ToOwned::to_owned)), "{done:?}");
    assert_eq!(world.machine.rest("a"), Some(Ok(())));
    // Once it has passed, it is as any other.
    let claim = world.machine.rules.claim.clone();
    world.tell(Event::Rules { rules: Rules { trial: false, claim, ..trial() }, nics: false });
    assert!(world.done.last().is_some_and(|last| matches!(last, Effect::ProvePlc { .. })), "{:?}", world.done);
    world.crash(1);
    world.settle();
    assert_eq!((world.machine.restarts(), world.running()), (1, true));
}

#[test]
fn the_first_end_on_trial_is_the_last_and_none_of_what_was_before() {
    for policy in [Policy::Always, Policy::Never] {
        let restart = Restart { policy, limit: 1, ..Restart::default() };
        let mut world = World::over(Sight::default(), Rules { restart: restart.clone(), ..rules(Wanted::Running) });
        world.start();
        world.settle();
        world.tell(Event::Rules { rules: Rules { restart: restart.clone(), ..trial() }, nics: false });
        world.crash(7);
        let Some(Err(error)) = world.machine.rest("a") else { panic!("{:?}", world.machine.rest("a")) };
        assert_eq!(error.kind, Kind::VplcFailed);
        assert!(error.message.contains("exit code 7 after it was changed. Its last line was: last"), "{error}");
        assert_eq!((world.machine.restarts(), &world.latch), (0, &None));
        // Back: it runs, although a single end would be enough for it to be left alone.
        world.tell(Event::Rules { rules: Rules { restart, ..rules(Wanted::Running) }, nics: false });
        world.settle();
        assert!(world.running() && world.machine.latch().is_none(), "{policy:?}");
        assert!(world.sight.runtime.as_ref().is_some_and(|runtime| runtime.generation == 1));
        assert_eq!(world.machine.rest("a"), Some(Ok(())));
    }
}

#[test]
fn a_runtime_that_ends_while_it_is_claimed_is_looked_at() {
    let mut world = World::over(Sight::default(), trial());
    world.fails = Some(6);
    world.start();
    assert_eq!(names(&world.done[6..]), ["Claim"]);
    world.settle();
    let mut machine = Machine::new(trial());
    machine.step(Event::Turn);
    machine.step(Event::Engine(true));
    let Condition::Running { pid, .. } = world.sight.runtime.as_ref().unwrap().condition else { panic!() };
    assert!(
        matches!(machine.step(Event::Seen(world.sight.clone(), Duration::ZERO))[..], [Effect::Claim { .. }]),
        "{pid}"
    );
    assert_eq!(machine.step(Event::Ended), [Effect::Look]);
    let exit = Exit { code: 3, out_of_memory: false };
    world.sight.runtime.as_mut().unwrap().condition = Condition::Exited(exit);
    assert_eq!(machine.step(Event::Seen(world.sight.clone(), Duration::ZERO)), [Effect::ReadLines]);
    machine.step(Event::Lines(Vec::new()));
    assert!(matches!(machine.rest("a"), Some(Err(error)) if error.message.contains("exit code 3")));
}

#[test]
fn health_is_waited_for_as_long_as_it_may_take() {
    let mut world = World::new(Wanted::Running);
    world.start();
    world.settle();
    let ill = |world: &mut World, wellness| {
        let Condition::Running { pid, .. } = world.sight.runtime.as_ref().unwrap().condition else { panic!() };
        world.sight.runtime.as_mut().unwrap().condition = Condition::Running { pid, wellness };
        world.tell(Event::Stirred);
    };
    ill(&mut world, Wellness::Starting);
    assert!(world.awaits);
    assert_eq!(world.machine.rest("a"), None);
    world.tell(Event::Late);
    assert!(
        matches!(world.machine.rest("a"), Some(Err(error)) if error.message.contains("did not get healthy within 60 s"))
    );
    ill(&mut world, Wellness::Healthy);
    assert_eq!(world.machine.rest("a"), Some(Ok(())));
    assert!(world.running());
}

#[test]
fn an_ill_runtime_on_trial_is_not_restarted_but_taken_back() {
    let mut world = World::over(Sight::default(), Rules { unhealthy: Unhealthy::Restart, ..trial() });
    world.start();
    let Condition::Running { pid, .. } = world.sight.runtime.as_ref().unwrap().condition else { panic!() };
    world.sight.runtime.as_mut().unwrap().condition = Condition::Running { pid, wellness: Wellness::Unhealthy };
    world.tell(Event::Stirred);
    world.settle();
    assert_eq!(world.count(&Effect::StopRuntime), 0);
    assert!(matches!(world.machine.rest("a"), Some(Err(error)) if error.kind == Kind::VplcFailed));
}

#[test]
fn an_end_that_is_seen_on_the_way_back_only_counts_for_nothing() {
    let restart = Restart { policy: Policy::Never, limit: 1, ..Restart::default() };
    let before = || Rules { restart: restart.clone(), ..claiming(None) };
    let mut world = World::over(Sight::default(), before());
    world.start();
    world.settle();
    // The tenth effect is the claim. Nobody has seen yet that the runtime ended.
    world.fails = Some(world.done.len() + 9);
    world.tell(Event::Rules { rules: Rules { restart: restart.clone(), ..trial() }, nics: false });
    assert!(matches!(world.done.last(), Some(Effect::Claim { .. })), "{:?}", world.done);
    let exit = Exit { code: 7, out_of_memory: false };
    world.sight.runtime.as_mut().unwrap().condition = Condition::Exited(exit);
    world.tell(Event::Rules { rules: before(), nics: false });
    world.settle();
    assert!(world.running() && world.machine.latch().is_none(), "{:?}", world.done);
}
