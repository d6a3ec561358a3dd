//! What the client does next (RFC 2131, 4.4): state and event in, effects out. No socket, clock or file in here.

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::machine::Conflict;
use super::lease::Lease;
use super::message::{Answer, Incoming, Outgoing, Saying};
use crate::network::address::Mac;

/// The first wait for an answer; each further one is twice as long (RFC 2131, 4.1).
const WAIT_FIRST: Duration = Duration::from_secs(4);
/// How often a wait is doubled.
const WAIT_DOUBLED: u32 = 4;
/// A wait is shorter or longer by up to this, at random.
const WAIT_SPREAD: Duration = Duration::from_secs(1);
/// While a lease is renewed, nothing is repeated sooner (RFC 2131, 4.4.5).
const RENEWAL_LEAST: Duration = Duration::from_mins(1);
/// An offer that was asked for this often without an answer is not waited for any longer.
const REQUESTS: u32 = 4;
/// So often is asked whether a lease still holds before a new one is looked for.
const CONFIRMATIONS: u32 = 2;
/// After so many questions without an answer it is told that no server is there.
const SILENCE: u32 = 2;
/// How long to wait after an address that somebody has (RFC 2131, 3.1).
const AFTER_DECLINE: Duration = Duration::from_secs(10);
/// The longest wait after refusals, in doublings of a second.
const REFUSALS: u32 = 6;

/// When something happens, on a clock that never jumps, and a random number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Time since the host was started.
    pub at: Duration,
    /// A number that nobody else can know.
    pub random: u64,
}

/// A lease that holds, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What was granted.
    pub lease: Lease,
    /// When it was asked for, which is when its time begins to count.
    pub since: Duration,
}

impl Held {
    fn renew_at(&self) -> Option<Duration> {
        self.lease.seconds.map(|_| self.since + Duration::from_secs(self.lease.renew.into()))
    }

    fn rebind_at(&self) -> Option<Duration> {
        self.lease.seconds.map(|_| self.since + Duration::from_secs(self.lease.rebind.into()))
    }

    /// When it ends; never if none.
    pub fn ends_at(&self) -> Option<Duration> {
        self.lease.seconds.map(|seconds| self.since + Duration::from_secs(seconds.into()))
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is something at the other end of the parent now, or there is nothing.
    Carrier(bool),
    /// There may be another network at the other end.
    Moved,
    /// A server answered.
    Answered(Incoming),
    /// The time of [`Client::due`] has come.
    Due,
    /// Nobody was found to have the address.
    Clear,
    /// Somebody has the address.
    Taken(Ipv4Addr, Mac),
    /// The address is not wanted any more.
    Release,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send this.
    Send(Outgoing),
    /// Ask whether somebody has this address.
    Probe(Ipv4Addr),
    /// Keep this lease, and bring the link in line with it.
    Use(Held),
    /// Take from the link what came with the lease, and forget it.
    Withdraw,
}

/// What is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// No server answers.
    Silence,
    /// A server does not renew the lease.
    NotRenewed,
    /// A server refused.
    Refused {
        /// Who.
        server: Ipv4Addr,
        /// Why.
        reason: String,
    },
    /// Somebody has the address that was leased.
    Taken(Ipv4Addr, Mac),
}

/// Questions until there is an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exchange {
    xid: u32,
    began: Duration,
    sent: Duration,
    tries: u32,
    due: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Nothing can be heard.
    Idle,
    Selecting(Exchange),
    Requesting(Exchange, Lease),
    /// Asks whether an address that was leased once still is (INIT-REBOOT).
    Confirming(Exchange, Ipv4Addr),
    /// Asks whether somebody has the address of a new lease.
    Checking(Held),
    Bound,
    Renewing(Exchange),
    Rebinding(Exchange),
    /// Until then nothing is asked.
    Pausing(Duration),
    Released,
}

/// A DHCP client.
#[derive(Debug, Clone)]
pub struct Client {
    conflict: Conflict,
    phase: Phase,
    /// The lease whose address is on the link. It outlives every phase, up to its end.
    held: Option<Held>,
    /// The address to ask for, and whether it may be asked for without an offer.
    wanted: Option<(Ipv4Addr, bool)>,
    refusals: u32,
    trouble: Option<Trouble>,
}

impl Client {
    /// A client that has heard nothing yet. `held` is on the link already; `wanted` was leased before, and `true` says that
    /// its time is not over.
    pub fn new(conflict: Conflict, held: Option<Held>, wanted: Option<(Ipv4Addr, bool)>) -> Self {
        Self { conflict, phase: Phase::Idle, held, wanted, refusals: 0, trouble: None }
    }

    /// The state in one word.
    pub fn state(&self) -> &'static str {
        match (&self.phase, &self.held) {
            (Phase::Checking(_), _) => "probing",
            (Phase::Bound, _) => "bound",
            (Phase::Renewing(_), _) => "renewing",
            (Phase::Rebinding(_) | Phase::Selecting(_) | Phase::Requesting(..) | Phase::Confirming(..), Some(_)) => {
                "rebinding"
            }
            (Phase::Pausing(_), _) => "failed",
            (Phase::Selecting(_), None) if self.trouble.is_some() => "failed",
            _ => "acquiring",
        }
    }

    /// What is not as it should be; nothing once there is a lease.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// The lease whose address is on the link.
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Whether an answer is waited for.
    pub fn listens(&self) -> bool {
        self.exchange().is_some()
    }

    /// When the next thing is to be done by the clock.
    pub fn due(&self) -> Option<Duration> {
        let held = self.held.as_ref();
        let next = match &self.phase {
            Phase::Idle | Phase::Checking(_) | Phase::Released => None,
            Phase::Bound => held.and_then(Held::renew_at),
            Phase::Renewing(exchange) => held.and_then(Held::rebind_at).map(|rebind| rebind.min(exchange.due)),
            Phase::Pausing(until) => Some(*until),
            _ => self.exchange().map(|exchange| exchange.due),
        };
        next.into_iter().chain(held.and_then(Held::ends_at)).min()
    }

    fn exchange(&self) -> Option<&Exchange> {
        match &self.phase {
            Phase::Selecting(exchange)
            | Phase::Requesting(exchange, _)
            | Phase::Confirming(exchange, _)
            | Phase::Renewing(exchange)
            | Phase::Rebinding(exchange) => Some(exchange),
            _ => None,
        }
    }

    /// Takes in what happened, and says what to do, in this order.
    pub fn step(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.phase == Phase::Released {
            return effects;
        }
        match event {
            Event::Carrier(true) if self.phase == Phase::Idle => self.begin(now, &mut effects),
            Event::Carrier(true) => {}
            Event::Carrier(false) => self.phase = Phase::Idle,
            Event::Moved => {
                if self.phase != Phase::Idle {
                    self.begin(now, &mut effects);
                }
            }
            Event::Answered(incoming) => self.answered(now, incoming, &mut effects),
            Event::Due => self.due_now(now, &mut effects),
            Event::Clear => {
                if let Phase::Checking(held) = &self.phase {
                    let held = held.clone();
                    match held.ends_at() {
                        Some(end) if end <= now.at => self.discover(now, &mut effects),
                        _ => self.bind(held, &mut effects),
                    }
                }
            }
            Event::Taken(address, owner) => self.taken(now, address, owner, &mut effects),
            Event::Release => {
                if let Some(held) = self.held.take() {
                    effects.push(Effect::Send(Outgoing {
                        saying: Saying::Release,
                        xid: xid(now),
                        seconds: 0,
                        client: held.lease.address,
                        requested: None,
                        server: Some(held.lease.server),
                        to: Some(held.lease.server),
                    }));
                }
                effects.push(Effect::Withdraw);
                self.phase = Phase::Released;
            }
        }
        effects
    }

    /// Begins to look for a lease: by asking for the one of before, if there is one.
    fn begin(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let held = self.held.as_ref().map(|held| held.lease.address);
        match held.or(self.wanted.and_then(|(address, holds)| holds.then_some(address))) {
            Some(address) => {
                let exchange = Exchange::start(now);
                effects.push(Effect::Send(exchange.request(None, Some(address), None)));
                self.phase = Phase::Confirming(exchange, address);
            }
            None => self.discover(now, effects),
        }
    }

    fn discover(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let exchange = Exchange::start(now);
        effects.push(Effect::Send(exchange.discover(self.wanted.map(|(address, _)| address))));
        self.phase = Phase::Selecting(exchange);
    }

    fn answered(&mut self, now: Moment, incoming: Incoming, effects: &mut Vec<Effect>) {
        let Some(exchange) = self.exchange().copied().filter(|exchange| exchange.xid == incoming.xid) else { return };
        // Who is asked directly has to be the one who answers.
        let asked = match &self.phase {
            Phase::Requesting(_, offer) => Some(offer.server),
            Phase::Renewing(_) => self.held.as_ref().map(|held| held.lease.server),
            _ => None,
        };
        let is_asked = |server: Ipv4Addr| asked.is_none_or(|asked| asked == server);
        match incoming.answer {
            Answer::Offer(offer) if matches!(self.phase, Phase::Selecting(_)) => {
                let exchange = Exchange { sent: now.at, tries: 1, due: now.at + wait(now, 0), ..exchange };
                effects.push(Effect::Send(exchange.request(None, Some(offer.address), Some(offer.server))));
                self.phase = Phase::Requesting(exchange, offer);
            }
            Answer::Ack(lease) if !matches!(self.phase, Phase::Selecting(_)) && is_asked(lease.server) => {
                let held = Held { lease, since: exchange.sent };
                let place = |held: &Held| (held.lease.address, held.lease.length);
                let known = self.held.as_ref().map(place) == Some(place(&held));
                if known || self.conflict == Conflict::Warn {
                    self.bind(held, effects);
                } else {
                    effects.push(Effect::Probe(held.lease.address));
                    self.phase = Phase::Checking(held);
                }
            }
            Answer::Nak { server, reason } if !matches!(self.phase, Phase::Selecting(_)) && is_asked(server) => {
                self.give_up(effects);
                self.wanted = None;
                self.trouble = Some(Trouble::Refused { server, reason });
                self.refusals = self.refusals.saturating_add(1);
                // At once the first time, because then we have moved; a server that refuses what it offers is not pressed.
                match self.refusals.checked_sub(2) {
                    None => self.discover(now, effects),
                    Some(doubled) => {
                        let pause = Duration::from_secs(1 << doubled.min(REFUSALS));
                        self.phase = Phase::Pausing(now.at + pause + jitter(now, pause / 2));
                    }
                }
            }
            _ => {}
        }
    }

    fn bind(&mut self, held: Held, effects: &mut Vec<Effect>) {
        self.wanted = Some((held.lease.address, true));
        self.held = Some(held.clone());
        self.phase = Phase::Bound;
        self.refusals = 0;
        self.trouble = None;
        effects.push(Effect::Use(held));
    }

    fn give_up(&mut self, effects: &mut Vec<Effect>) {
        if self.held.take().is_some() {
            effects.push(Effect::Withdraw);
        }
    }

    fn taken(&mut self, now: Moment, address: Ipv4Addr, owner: Mac, effects: &mut Vec<Effect>) {
        let lease = match &self.phase {
            Phase::Checking(held) => &held.lease,
            _ => match &self.held {
                Some(held) => &held.lease,
                None => return,
            },
        };
        if lease.address != address {
            return;
        }
        self.trouble = Some(Trouble::Taken(address, owner));
        if self.conflict == Conflict::Warn {
            return;
        }
        let decline = Outgoing {
            saying: Saying::Decline,
            xid: xid(now),
            seconds: 0,
            client: Ipv4Addr::UNSPECIFIED,
            requested: Some(address),
            server: Some(lease.server),
            to: None,
        };
        if self.held.as_ref().is_some_and(|held| held.lease.address == address) {
            self.give_up(effects);
        }
        effects.push(Effect::Send(decline));
        self.wanted = None;
        self.phase = Phase::Pausing(now.at + AFTER_DECLINE + jitter(now, WAIT_SPREAD));
    }

    fn due_now(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let has_come = |time: Option<Duration>| time.is_some_and(|time| time <= now.at);
        if has_come(self.held.as_ref().and_then(Held::ends_at)) {
            self.give_up(effects);
            self.trouble = Some(Trouble::Silence);
            self.wanted = self.wanted.map(|(address, _)| (address, false));
            if matches!(self.phase, Phase::Bound | Phase::Renewing(_) | Phase::Rebinding(_) | Phase::Confirming(..)) {
                return self.discover(now, effects);
            }
        }
        let exchange_is_due = has_come(self.exchange().map(|exchange| exchange.due));
        match (&mut self.phase, &self.held) {
            (Phase::Selecting(exchange), _) if exchange_is_due => {
                if exchange.tries >= SILENCE {
                    self.trouble.get_or_insert(Trouble::Silence);
                }
                exchange.again(now);
                effects.push(Effect::Send(exchange.discover(self.wanted.map(|(address, _)| address))));
            }
            (Phase::Requesting(exchange, offer), _) if exchange_is_due => {
                if exchange.tries >= REQUESTS {
                    return self.discover(now, effects);
                }
                exchange.again(now);
                effects.push(Effect::Send(exchange.request(None, Some(offer.address), Some(offer.server))));
            }
            (Phase::Confirming(exchange, address), _) if exchange_is_due => {
                if exchange.tries >= CONFIRMATIONS {
                    return self.discover(now, effects);
                }
                exchange.again(now);
                effects.push(Effect::Send(exchange.request(None, Some(*address), None)));
            }
            // A host that was suspended may have slept through T1 and more.
            (Phase::Bound, Some(held)) if has_come(held.rebind_at()) => {
                let mut exchange = Exchange::start(now);
                exchange.due = half_way(now, held.ends_at());
                effects.push(Effect::Send(Outgoing { to: None, ..exchange.request(Some(held), None, None) }));
                self.phase = Phase::Rebinding(exchange);
            }
            (Phase::Bound, Some(held)) if has_come(held.renew_at()) => {
                let mut exchange = Exchange::start(now);
                exchange.due = half_way(now, held.rebind_at());
                effects.push(Effect::Send(exchange.request(Some(held), None, None)));
                self.phase = Phase::Renewing(exchange);
            }
            (Phase::Renewing(exchange), Some(held)) if has_come(held.rebind_at()) => {
                let mut exchange = *exchange;
                exchange.again(now);
                exchange.due = half_way(now, held.ends_at());
                effects.push(Effect::Send(Outgoing { to: None, ..exchange.request(Some(held), None, None) }));
                self.trouble = Some(Trouble::NotRenewed);
                self.phase = Phase::Rebinding(exchange);
            }
            (Phase::Renewing(exchange), Some(held)) if exchange_is_due => {
                exchange.again(now);
                exchange.due = half_way(now, held.rebind_at());
                effects.push(Effect::Send(exchange.request(Some(held), None, None)));
            }
            (Phase::Rebinding(exchange), Some(held)) if exchange_is_due => {
                exchange.again(now);
                exchange.due = half_way(now, held.ends_at());
                effects.push(Effect::Send(Outgoing { to: None, ..exchange.request(Some(held), None, None) }));
            }
            (Phase::Pausing(until), _) if *until <= now.at => self.discover(now, effects),
            _ => {}
        }
    }
}

impl Exchange {
    fn start(now: Moment) -> Self {
        Self { xid: xid(now), began: now.at, sent: now.at, tries: 1, due: now.at + wait(now, 0) }
    }

    fn again(&mut self, now: Moment) {
        self.due = now.at + wait(now, self.tries);
        self.tries += 1;
        self.sent = now.at;
    }

    fn message(&self, saying: Saying) -> Outgoing {
        let seconds = u16::try_from(self.sent.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX);
        let client = Ipv4Addr::UNSPECIFIED;
        Outgoing { saying, xid: self.xid, seconds, client, requested: None, server: None, to: None }
    }

    fn discover(&self, requested: Option<Ipv4Addr>) -> Outgoing {
        Outgoing { requested, ..self.message(Saying::Discover) }
    }

    /// A request in the form that RFC 2131, 4.3.2 has for the state: for a lease that is held, it goes to the server.
    fn request(&self, held: Option<&Held>, requested: Option<Ipv4Addr>, server: Option<Ipv4Addr>) -> Outgoing {
        let client = held.map_or(Ipv4Addr::UNSPECIFIED, |held| held.lease.address);
        Outgoing { client, requested, server, to: held.map(|held| held.lease.server), ..self.message(Saying::Request) }
    }
}

fn xid(now: Moment) -> u32 {
    // The upper half is for the waits.
    u32::try_from(now.random & u64::from(u32::MAX)).unwrap_or_default()
}

/// A time from nothing to `most`.
fn jitter(now: Moment, most: Duration) -> Duration {
    most.mul_f64(f64::from(u32::try_from(now.random >> 32).unwrap_or_default()) / f64::from(u32::MAX))
}

/// How long to wait for an answer after so many questions before.
fn wait(now: Moment, before: u32) -> Duration {
    (WAIT_FIRST * (1 << before.min(WAIT_DOUBLED))).saturating_sub(WAIT_SPREAD) + jitter(now, WAIT_SPREAD * 2)
}

/// When to ask again while a lease is renewed: after half of the time that is left, and not before a minute is over.
fn half_way(now: Moment, end: Option<Duration>) -> Duration {
    now.at + (end.unwrap_or_default().saturating_sub(now.at) / 2).max(RENEWAL_LEAST)
}
