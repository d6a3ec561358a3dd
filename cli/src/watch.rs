//! Follows what the daemon does, across its restarts.

mod network;
mod update;

use serde_json::{Value, json};

use crate::args::WatchScope;
use crate::client::{Client, Event};
use crate::failure::{Failure, SUCCESS};
use crate::interrupt::Interrupt;
use crate::output::{Moment, print, print_json_line, printable};

/// Follows until a signal or the end of the bus.
pub async fn run(scope: WatchScope, json: bool) -> Result<u8, Failure> {
    let mut interrupt = Interrupt::new()?;
    let follow = async {
        match scope {
            WatchScope::Update => follow::<update::Watch>(json).await,
            WatchScope::Network => follow::<network::Watch>(json).await,
        }
    };
    tokio::select! {
        biased;
        // The way to end this command is no failure of it.
        _ = interrupt.wait() => Ok(SUCCESS),
        outcome = follow => outcome,
    }
}

/// Something that can be followed: what is known of it, and how it is printed.
trait Watched: Default {
    /// As the daemon shows it now.
    async fn read(client: &Client) -> Result<Self, Failure>;

    /// Prints everything.
    fn print_all(&self, lines: Lines) -> Result<(), Failure>;

    /// Takes in what the daemon said, and prints what that changed.
    fn event(&mut self, event: Event, lines: Lines) -> Result<(), Failure>;
}

async fn follow<T: Watched>(json: bool) -> Result<u8, Failure> {
    let lines = if json { Lines::Json } else { Lines::Text };
    let mut client = Client::connect().await?;
    loop {
        let mut listener = client.listen().await?;
        let mut watch = T::default();
        let mut early = Vec::new();
        let first = listener.during(T::read(&client), |event| {
            early.push(event);
            Ok(())
        });
        let first = first.await;
        let mut presence = Presence::Here;
        for event in &early {
            presence.note(event);
        }
        match first {
            Ok(read) => {
                watch = read;
                // What is said between two answers may stand in neither.
                for event in early {
                    watch.event(event, Lines::None)?;
                }
                watch.print_all(lines)?;
            }
            Err(Failure::Gone(_)) => {}
            Err(failure) => return Err(failure),
        }
        while presence == Presence::Here {
            let event = listener.next().await?;
            presence.note(&event);
            watch.event(event, lines)?;
        }
        lines.print("orchestratord has left the bus", json!({ "event": "vanished" }))?;
        // Asking for the daemon would start it, and someone may have stopped it on purpose.
        while presence != Presence::Replaced {
            presence.note(&listener.next().await?);
        }
        client = client.again().await?;
    }
}

/// Where the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// On the bus.
    Here,
    /// Not on the bus.
    Gone,
    /// Another instance of it is on the bus.
    Replaced,
}

impl Presence {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Vanished => *self = Self::Gone,
            Event::Appeared => *self = Self::Replaced,
            _ => {}
        }
    }
}

/// The lines that come out, each with the time.
#[derive(Debug, Clone, Copy)]
enum Lines {
    /// For people.
    Text,
    /// One object each.
    Json,
    /// None.
    None,
}

impl Lines {
    /// Prints a line; text that is empty is for readers of JSON only.
    fn print(self, text: &str, mut line: Value) -> Result<(), Failure> {
        let time = Moment::now().rfc3339();
        match self {
            Self::Json => {
                line["time"] = time.into();
                print_json_line(&line)
            }
            Self::Text if !text.is_empty() => print(&format!("{time} {}\n", printable(text))),
            Self::Text | Self::None => Ok(()),
        }
    }
}
