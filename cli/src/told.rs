//! Keeps an error from being told twice: a Component that fails has its error in the log of the Job and in its property
//! `LastError`, in either order.

use std::collections::BTreeMap;

/// The last error of each Component, and from where it is known.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<String, Error>);

#[derive(Debug)]
struct Error {
    message: String,
    by_log: bool,
    by_property: bool,
}

/// From where an error is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line of the Job's log.
    Log,
    /// The property of the Component.
    Property,
}

impl Told {
    /// Whether this error is to be told. It is not if the other place told it already; the same place telling it again
    /// means that it happened again.
    pub fn is_news(&mut self, component: &str, message: &str, place: Place) -> bool {
        if let Some(last) = self.0.get_mut(component).filter(|last| last.message == message) {
            let known = match place {
                Place::Log => &mut last.by_log,
                Place::Property => &mut last.by_property,
            };
            if !std::mem::replace(known, true) {
                return false;
            }
        }
        let (by_log, by_property) = (place == Place::Log, place == Place::Property);
        self.0.insert(component.to_owned(), Error { message: message.to_owned(), by_log, by_property });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_places_tell_one_error_once() {
        for (first, second) in [(Place::Log, Place::Property), (Place::Property, Place::Log)] {
            let mut told = Told::default();
            assert!(told.is_news("rtos.R1", "It broke.", first));
            assert!(!told.is_news("rtos.R1", "It broke.", second));
            // Another Component, another error.
            assert!(told.is_news("rtos.R2", "It broke.", second));
            assert!(told.is_news("rtos.R1", "It broke again.", second));
        }
    }

    #[test]
    fn an_error_that_happens_again_is_told_again() {
        let mut told = Told::default();
        assert!(told.is_news("rtos.R1", "It broke.", Place::Log));
        assert!(!told.is_news("rtos.R1", "It broke.", Place::Property));
        // The property does not change then.
        assert!(told.is_news("rtos.R1", "It broke.", Place::Log));
        assert!(told.is_news("rtos.R1", "It broke.", Place::Log));
        assert!(!told.is_news("rtos.R1", "It broke.", Place::Property));
    }
}
