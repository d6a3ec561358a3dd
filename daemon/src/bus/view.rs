//! What an object shows: the properties that change, as they go over the bus.
//!
//! A view is what was *published*: the publisher replaces it and sends the signal for it, and the getters read it. So
//! what a reader gets is never ahead of the signals, and a signal never repeats what a reader already has.

use std::collections::{BTreeMap, HashMap};

use zbus::{ObjectPath, OwnedObjectPath, Variant};

use super::ROOT;
use crate::core::error::Error;
use crate::core::name::dbus_escape;
use crate::update::component::ComponentKey;

/// Properties with their new values.
pub(super) type Changes = HashMap<&'static str, Variant<'static>>;

/// The properties of one interface that change.
pub(super) trait View: Clone + Send + Sync + 'static {
    /// Name of the interface.
    const INTERFACE: &'static str;

    /// What differs from what was shown before.
    fn changes_since(&self, before: &Self) -> Changes;
}

/// Declares a view: a struct with one field per property, each named once.
macro_rules! view {
    ($(#[$meta:meta])* $name:ident of $interface:literal { $($property:literal $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub(super) struct $name {
            $(pub(super) $field: $kind,)*
        }

        impl $crate::bus::view::View for $name {
            const INTERFACE: &'static str = $interface;

            #[allow(clippy::float_cmp, reason = "the question is whether the value on the bus is still the same one")]
            fn changes_since(&self, before: &Self) -> $crate::bus::view::Changes {
                let mut changes = $crate::bus::view::Changes::new();
                $(
                    if self.$field != before.$field {
                        changes.insert($property, zbus::Variant::from(self.$field.clone()));
                    }
                )*
                changes
            }
        }
    };
}
pub(super) use view;

/// Text from outside, made fit for a D-Bus string, which cannot hold NUL.
pub(super) fn text(text: impl Into<String>) -> String {
    let text = text.into();
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// Each of these as text.
pub(super) fn lines<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// A dictionary from outside, made fit for D-Bus.
pub(super) fn texts(texts: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    texts.iter().map(|(key, value)| (text(key), text(value))).collect()
}

/// A share from 0 to 1; what is no number counts as nothing.
pub(super) fn share(share: f64) -> f64 {
    if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
}

/// D-Bus error name and message; both are empty if there is no error.
pub(super) fn error_pair(error: Option<&Error>) -> (String, String) {
    error.map_or_else(Default::default, |error| (error.kind.dbus_name().to_owned(), text(error.message.as_str())))
}

/// Path of a Component.
pub(super) fn component_path(key: &ComponentKey) -> OwnedObjectPath {
    path(format!("{ROOT}/component/{}/{}", dbus_escape(&key.component_type), dbus_escape(&key.id)))
}

/// Path of a Job.
pub(super) fn job_path(id: u32) -> OwnedObjectPath {
    path(format!("{ROOT}/job/{id}"))
}

/// Path of a link.
pub(super) fn link_path(index: u32) -> OwnedObjectPath {
    path(format!("{ROOT}/link/{index}"))
}

/// Path of a NIC; one of a vPLC stands below that.
pub(super) fn nic_path(name: &str) -> OwnedObjectPath {
    match name.split_once('/') {
        Some((vplc, nic)) => path(format!("{ROOT}/vplc/{}/nic/{}", dbus_escape(vplc), dbus_escape(nic))),
        None => path(format!("{ROOT}/nic/{}", dbus_escape(name))),
    }
}

/// Path of a vPLC.
pub(super) fn vplc_path(name: &str) -> OwnedObjectPath {
    path(format!("{ROOT}/vplc/{}", dbus_escape(name)))
}

/// Path of the System.
pub(super) fn root_path() -> OwnedObjectPath {
    path(ROOT.to_owned())
}

/// `/`, which stands for "none".
pub(super) fn no_path() -> OwnedObjectPath {
    path("/".to_owned())
}

/// Every caller builds its path from constants, numbers and escaped names only, so it is valid.
fn path(path: String) -> OwnedObjectPath {
    ObjectPath::from_string_unchecked(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_valid_whatever_the_names_are() {
        for name in ["", "/", "a/b", "\0", "7", "é", "_", "a.b-c", "52:54:00:1d:94:82"] {
            let key = ComponentKey { component_type: name.to_owned(), id: name.to_owned() };
            let path = component_path(&key);
            assert!(ObjectPath::try_from(path.as_str()).is_ok(), "{path}");
        }
        assert_eq!(job_path(7).as_str(), "/org/orchestratord1/job/7");
    }

    #[test]
    fn shares_stay_between_nothing_and_all() {
        for (given, shown) in [(0.5, 0.5), (-1.0, 0.0), (7.0, 1.0), (f64::NAN, 0.0), (f64::INFINITY, 1.0)] {
            assert!((share(given) - shown).abs() < f64::EPSILON, "{given}");
        }
    }

    #[test]
    fn nul_never_reaches_the_bus() {
        assert_eq!(text("a\0b"), "a\u{fffd}b");
        let texts = texts(&BTreeMap::from([("k\0".to_owned(), "\0v".to_owned())]));
        assert_eq!(texts, BTreeMap::from([("k\u{fffd}".to_owned(), "\u{fffd}v".to_owned())]));
    }
}
