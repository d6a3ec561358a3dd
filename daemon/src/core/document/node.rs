//! From YAML text to a tree of nodes that know their position.
//!
//! Bounds are enforced while the events arrive. The tree shares what aliases stand for instead of copying it, and yet
//! counts it in full, so that neither the tree nor anybody who walks it can grow beyond the limits.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag, options};

use super::{DEPTH_LIMIT, DocumentError, EXPANDED_LIMIT, NODES_LIMIT, Place, Problem, Source, excerpt, place_after};

/// One value of the document.
#[derive(Debug)]
pub(super) struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a [`Node`] is.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Any other scalar; what it means is for the reader to say, so `1.10` and `yes` can stay the strings they are.
    Scalar {
        /// The text, escapes resolved.
        text: String,
        /// Written without quotes and not as a block.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Rc<Node>>),
    /// A mapping, in its order.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub place: Place,
    pub value: Rc<Node>,
}

/// Parses the one document of a text.
pub(super) fn parse(source: Source<'_>, text: &str) -> Result<Rc<Node>, DocumentError> {
    let limit = source.kind.limit();
    if text.len() > limit {
        return Err(source.error(Place { line: 1, column: 1 }, "", Problem::TooLarge { limit }));
    }
    if let Some(position) = text.find('\0') {
        return Err(source.error(place_after(text.get(..position).unwrap_or_default()), "", Problem::Nul));
    }
    let options = options! {
        // The scanner itself stops at these, so a long run of brackets costs nothing.
        flow_nesting_limit: DEPTH_LIMIT,
        block_nesting_limit: DEPTH_LIMIT,
        emit_comments: false,
    };
    let mut tree = Tree { source, stack: Vec::new(), anchors: HashMap::new(), nodes: 0, bytes: 0, root: None };
    let mut documents = 0_usize;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| tree.syntax_error(&error))?;
        if let Event::DocumentStart(..) = event {
            documents += 1;
            if documents > 1 {
                return Err(source.error(place(span.start), "", Problem::SeveralDocuments));
            }
        } else {
            tree.take(event, span)?;
        }
    }
    match tree.root {
        Some(root) if !matches!(root.value, Value::Null) => Ok(root),
        _ => Err(source.error(Place { line: 1, column: 1 }, "", Problem::Empty)),
    }
}

/// What an anchor stands for, with what it costs to stand somewhere else once more.
struct Anchored {
    node: Rc<Node>,
    nodes: usize,
    bytes: usize,
    height: usize,
}

/// A collection that is not closed yet.
struct Open {
    anchor: usize,
    place: Place,
    /// The counters when it was opened.
    nodes: usize,
    bytes: usize,
    /// Levels below it, so far.
    height: usize,
    content: Content,
}

enum Content {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, lines: HashMap<String, usize>, key: Option<(String, Place)> },
}

struct Tree<'t> {
    source: Source<'t>,
    stack: Vec<Open>,
    /// `None`: the anchored collection is still open.
    anchors: HashMap<usize, Option<Anchored>>,
    nodes: usize,
    bytes: usize,
    root: Option<Rc<Node>>,
}

impl Tree<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), DocumentError> {
        let place = place(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let tagged = self.check_tag(tag.as_deref(), &["str"], place)?;
                let value = if plain && !tagged && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Value::Null
                } else {
                    Value::Scalar { text: text.into_owned(), plain: plain && !tagged }
                };
                if self.wants_key() {
                    return self.key(value, place);
                }
                let bytes = if let Value::Scalar { text, .. } = &value { text.len() } else { 0 };
                self.count(1, bytes, place)?;
                let node = Rc::new(Node { place, value });
                if anchor != 0 {
                    let anchored = Anchored { node: Rc::clone(&node), nodes: 1, bytes, height: 0 };
                    self.anchors.insert(anchor, Some(anchored));
                }
                self.put(node, 0);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), &["seq"], place)?;
                self.open(anchor, place, Content::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), &["map"], place)?;
                self.open(anchor, place, Content::Map { entries: Vec::new(), lines: HashMap::new(), key: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                if self.wants_key() {
                    return Err(self.error(place, Problem::KeyIsNoString));
                }
                let Some(Some(Anchored { node, nodes, bytes, height })) = self.anchors.get(&anchor) else {
                    return Err(self.error(place, Problem::AliasOfItself));
                };
                let (node, nodes, bytes, height) = (Rc::clone(node), *nodes, *bytes, *height);
                // Also keeps the recursion shallow with which the tree is dropped.
                if self.stack.len() + height > DEPTH_LIMIT {
                    return Err(self.error(place, Problem::TooDeep));
                }
                self.count(nodes, bytes, place)?;
                self.put(node, height);
            }
            // The events of the stream itself; the others are switched off.
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, place: Place, content: Content) -> Result<(), DocumentError> {
        if self.wants_key() {
            return Err(self.error(place, Problem::KeyIsNoString));
        }
        if self.stack.len() >= DEPTH_LIMIT {
            return Err(self.error(place, Problem::TooDeep));
        }
        let (nodes, bytes) = (self.nodes, self.bytes);
        self.count(1, 0, place)?;
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        self.stack.push(Open { anchor, place, nodes, bytes, height: 1, content });
        Ok(())
    }

    fn close(&mut self) {
        let Some(open) = self.stack.pop() else { return };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(entries),
        };
        let node = Rc::new(Node { place: open.place, value });
        if open.anchor != 0 {
            let anchored = Anchored {
                node: Rc::clone(&node),
                nodes: self.nodes - open.nodes,
                bytes: self.bytes - open.bytes,
                height: open.height,
            };
            self.anchors.insert(open.anchor, Some(anchored));
        }
        self.put(node, open.height);
    }

    /// Puts a finished value where it belongs.
    fn put(&mut self, node: Rc<Node>, height: usize) {
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return;
        };
        open.height = open.height.max(height + 1);
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, key, .. } => {
                if let Some((key, place)) = key.take() {
                    entries.push(Entry { key, place, value: node });
                }
            }
        }
    }

    fn wants_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { content: Content::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, value: Value, place: Place) -> Result<(), DocumentError> {
        let Value::Scalar { text, plain } = value else {
            return Err(self.error(place, Problem::KeyIsNoString));
        };
        self.count(0, text.len(), place)?;
        let merge = plain && text == "<<";
        let mut first = None;
        if let Some(Open { content: Content::Map { lines, key, .. }, .. }) = self.stack.last_mut() {
            first = lines.insert(text.clone(), place.line);
            *key = Some((text, place));
        }
        if let Some(first_line) = first {
            return Err(self.error(place, Problem::DuplicateKey { first_line }));
        }
        if merge {
            return Err(self.error(place, Problem::MergeKey));
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, bytes: usize, place: Place) -> Result<(), DocumentError> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > NODES_LIMIT || self.bytes > EXPANDED_LIMIT {
            return Err(self.error(place, Problem::TooMany));
        }
        Ok(())
    }

    /// True if a tag makes the value a string, whatever it looks like.
    fn check_tag(&self, tag: Option<&Tag>, allowed: &[&str], place: Place) -> Result<bool, DocumentError> {
        let Some(tag) = tag else { return Ok(false) };
        let unspecific = tag.handle().is_empty() && tag.suffix() == "!";
        if unspecific || allowed.iter().any(|suffix| tag.is_yaml_core_schema_tag(suffix)) {
            return Ok(true);
        }
        Err(self.error(place, Problem::Tag(excerpt(&tag.original()))))
    }

    fn error(&self, place: Place, problem: Problem) -> DocumentError {
        self.source.error(place, self.path(), problem)
    }

    fn syntax_error(&self, error: &ScanError) -> DocumentError {
        let problem = match error.kind() {
            ErrorKind::RecursionLimitExceeded => Problem::TooDeep,
            _ => Problem::Syntax(error.info()),
        };
        let key = if problem == Problem::TooDeep { self.path() } else { String::new() };
        self.source.error(place(*error.marker()), key, problem)
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.stack {
            match &open.content {
                Content::List(items) => push_index(&mut path, items.len()),
                Content::Map { key: Some((key, _)), .. } => push_key(&mut path, key),
                Content::Map { key: None, .. } => {}
            }
        }
        path
    }
}

/// Appends `[index]` to the path of a key.
pub(super) fn push_index(path: &mut String, index: usize) {
    path.push('[');
    path.push_str(&index.to_string());
    path.push(']');
}

/// Appends `.key` to the path of a key, or `['key']` if the key would make the path ambiguous.
pub(super) fn push_key(path: &mut String, key: &str) {
    let simple = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-:".contains(&byte));
    if simple && key.len() <= 80 {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
    } else {
        path.push_str("['");
        path.push_str(&excerpt(key));
        path.push_str("']");
    }
}

fn place(marker: Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}
