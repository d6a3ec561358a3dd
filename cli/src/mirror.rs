//! The objects of one interface, as this program remembers them.

use std::collections::BTreeMap;

use orchestratord_dbus::ManagedObjects;
use serde::Serialize;

use crate::client::{Event, Properties};

/// What is remembered of an object.
pub trait Object: Clone + Default + PartialEq + Serialize {
    /// The interface that it is known by.
    fn interface() -> &'static str;

    /// Takes in properties.
    fn merge(&mut self, properties: &Properties);
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It appeared.
    Added,
    /// Something of it changed.
    Changed,
    /// It vanished.
    Removed,
}

impl Change {
    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// All objects of one interface, by path.
#[derive(Debug, Default)]
pub struct Mirror<T>(BTreeMap<String, T>);

impl<T: Object> Mirror<T> {
    /// Those among all objects.
    pub fn new(objects: &mut ManagedObjects) -> Self {
        let mut all = BTreeMap::new();
        for (path, interfaces) in objects {
            if let Some(properties) = interfaces.remove(T::interface()) {
                let mut object = T::default();
                object.merge(&Properties::new(properties));
                all.insert(path.as_str().to_owned(), object);
            }
        }
        Self(all)
    }

    /// The object with this path.
    pub fn at(&self, path: &str) -> Option<&T> {
        self.0.get(path)
    }

    /// All of them with their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(path, object)| (path.as_str(), object))
    }

    /// All of them, by what this makes of each.
    pub fn sorted_by<'a, K: Ord>(&'a self, key: impl Fn(&'a T) -> K) -> Vec<&'a T> {
        let mut all: Vec<&T> = self.0.values().collect();
        all.sort_by_key(|object| key(object));
        all
    }

    /// Takes in what the daemon said; returns what that changed.
    pub fn apply(&mut self, event: &Event) -> Option<(T, Change)> {
        match event {
            Event::Changed { path, interface, properties } if interface == T::interface() => {
                let object = self.0.get_mut(path)?;
                let before = object.clone();
                object.merge(properties);
                (before != *object).then(|| (object.clone(), Change::Changed))
            }
            Event::Added(path, interfaces) => {
                let mut object = T::default();
                object.merge(interfaces.get(T::interface())?);
                let is_new = self.0.insert(path.clone(), object.clone()).is_none();
                is_new.then_some((object, Change::Added))
            }
            Event::Removed(path, interfaces) if interfaces.iter().any(|interface| interface == T::interface()) => {
                Some((self.0.remove(path)?, Change::Removed))
            }
            _ => None,
        }
    }
}
