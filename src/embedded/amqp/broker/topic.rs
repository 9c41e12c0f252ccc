//! Topic routing: patterns of words in a tree, walked by the words of a routing key.
//!
//! Words are divided by dots; `*` stands for one word, `#` for any number, also none; an empty key has no word at all
//! (RabbitMQ's topic exchange). All nodes that the words so far can lead to are kept as one set, so a key costs at most
//! its words times the nodes, however many `#` a pattern has.

use std::collections::HashMap;

use super::name::ShortStr;
use super::targets::Targets;

const ROOT: u32 = 0;

#[derive(Debug, Default)]
struct Node {
    words: HashMap<ShortStr, u32>,
    star: Option<u32>,
    hash: Option<u32>,
    /// Whether this node stands for `#`, so that any word leads from it to itself.
    is_hash: bool,
    targets: Targets,
    /// The last walk and step that reached it.
    seen: u64,
}

impl Node {
    fn is_bare(&self) -> bool {
        self.words.is_empty() && self.star.is_none() && self.hash.is_none() && self.targets.is_empty()
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Patterns {
    nodes: Vec<Node>,
    free: Vec<u32>,
    step: u64,
    now: Vec<u32>,
    next: Vec<u32>,
}

/// The words of a key or pattern.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    // A split of nothing would give one empty word.
    let some = (!key.is_empty()).then(|| key.split(|c| *c == b'.'));
    some.into_iter().flatten()
}

impl Patterns {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::default()], free: Vec::new(), step: 0, now: Vec::new(), next: Vec::new() }
    }

    fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)
    }

    fn child(&self, at: u32, word: &[u8]) -> Option<u32> {
        let node = self.node(at)?;
        match word {
            b"*" => node.star,
            b"#" => node.hash,
            word => node.words.get(word).copied(),
        }
    }

    fn link(&mut self, at: u32, word: &[u8], child: Option<u32>) {
        let Some(node) = self.nodes.get_mut(at as usize) else { return };
        match (word, child) {
            (b"*", child) => node.star = child,
            (b"#", child) => node.hash = child,
            (word, Some(child)) => {
                node.words.insert(ShortStr::new(word), child);
            }
            (word, None) => {
                node.words.remove(word);
            }
        }
    }

    fn make(&mut self, is_hash: bool) -> u32 {
        let node = Node { is_hash, ..Node::default() };
        if let Some(at) = self.free.pop()
            && let Some(place) = self.nodes.get_mut(at as usize)
        {
            *place = node;
            return at;
        }
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
    }

    /// What is bound by a pattern.
    pub(super) fn targets_mut(&mut self, pattern: &[u8]) -> Option<&mut Targets> {
        let mut at = ROOT;
        for word in words(pattern) {
            at = match self.child(at, word) {
                Some(child) => child,
                None => {
                    let child = self.make(word == b"#");
                    self.link(at, word, Some(child));
                    child
                }
            };
        }
        self.nodes.get_mut(at as usize).map(|node| &mut node.targets)
    }

    /// Gives up the nodes of a pattern that nothing is bound by any more.
    pub(super) fn tidy(&mut self, pattern: &[u8]) {
        let mut path = Vec::new();
        let mut at = ROOT;
        for word in words(pattern) {
            let Some(child) = self.child(at, word) else { break };
            path.push((at, word, child));
            at = child;
        }
        for (parent, word, child) in path.into_iter().rev() {
            if !self.node(child).is_some_and(Node::is_bare) {
                break;
            }
            self.link(parent, word, None);
            self.free.push(child);
        }
    }

    /// Adds a node to the next set, and the `#` behind it, which also stands for no word.
    fn reach(nodes: &mut [Node], next: &mut Vec<u32>, step: u64, at: u32) {
        let mut at = Some(at);
        while let Some(n) = at {
            let Some(node) = nodes.get_mut(n as usize) else { return };
            if node.seen == step {
                return;
            }
            node.seen = step;
            next.push(n);
            at = node.hash;
        }
    }

    /// Shows what is bound by each pattern that matches the key.
    pub(super) fn matching(&mut self, key: &[u8], mut found: impl FnMut(&Targets)) {
        self.step += 1;
        self.now.clear();
        Self::reach(&mut self.nodes, &mut self.now, self.step, ROOT);
        for word in words(key) {
            self.step += 1;
            self.next.clear();
            for at in &self.now {
                let Some(node) = self.nodes.get(*at as usize) else { continue };
                let (star, word) = (node.star, node.words.get(word).copied());
                let stay = node.is_hash.then_some(*at);
                for to in [word, star, stay].into_iter().flatten() {
                    Self::reach(&mut self.nodes, &mut self.next, self.step, to);
                }
            }
            std::mem::swap(&mut self.now, &mut self.next);
            if self.now.is_empty() {
                return;
            }
        }
        for at in &self.now {
            if let Some(node) = self.nodes.get(*at as usize)
                && !node.targets.is_empty()
            {
                found(&node.targets);
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::embedded::amqp::broker::slab::Slab;
    use crate::embedded::amqp::broker::targets::Target;

    /// The model: a pattern against a key, word by word.
    fn fits(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            ([b"#", rest @ ..], _) => (0..=key.len()).any(|n| fits(rest, &key[n..])),
            ([b"*", rest @ ..], [_, key @ ..]) => fits(rest, key),
            ([word, rest @ ..], [first, key @ ..]) => word == first && fits(rest, key),
            _ => false,
        }
    }

    fn all(key: &str) -> Vec<&[u8]> {
        words(key.as_bytes()).collect()
    }

    fn some_targets(n: usize) -> Vec<Target> {
        let mut slab = Slab::new();
        (0..n).map(|_| Target::Exchange(slab.insert_with(|_| unreachable_exchange()))).collect()
    }

    fn unreachable_exchange() -> crate::embedded::amqp::broker::exchange::Exchange {
        crate::embedded::amqp::broker::exchange::Exchange::for_tests()
    }

    fn matched(patterns: &mut Patterns, key: &str) -> BTreeSet<Target> {
        let mut found = BTreeSet::new();
        patterns.matching(key.as_bytes(), |targets| found.extend(targets.iter()));
        found
    }

    #[test]
    fn words_that_are_empty_count_as_rabbitmq_counts_them() {
        let keys = ["", "a", "a.", "a.b", ".a", "a..b", ".", "b.a", "a.b.a"];
        // As RabbitMQ 3.10 answers.
        let truth: [(&str, &[&str]); 9] = [
            ("", &[""]),
            ("#", &keys),
            ("*", &["a"]),
            ("a.#", &["a", "a.", "a.b", "a..b", "a.b.a"]),
            ("#.a", &["a", ".a", "b.a", "a.b.a"]),
            ("a.*", &["a.", "a.b"]),
            ("*.a", &[".a", "b.a"]),
            ("a..b", &["a..b"]),
            (".", &["."]),
        ];
        let target = some_targets(1)[0];
        for (pattern, want) in truth {
            let mut patterns = Patterns::new();
            patterns.targets_mut(pattern.as_bytes()).unwrap().add(target);
            let got: Vec<_> =
                keys.into_iter().filter(|key| !matched(&mut patterns, key).is_empty()).collect();
            assert_eq!(got, want, "pattern {pattern:?}");
        }
    }

    #[test]
    fn a_pattern_full_of_wildcards_against_a_long_key_takes_no_time() {
        let mut patterns = Patterns::new();
        let target = some_targets(1)[0];
        let pattern = "#.a.".repeat(40) + "#.b";
        patterns.targets_mut(pattern.as_bytes()).unwrap().add(target);
        for _ in 0..1_000 {
            assert!(matched(&mut patterns, &"a.".repeat(120)).is_empty());
        }
    }

    proptest! {
        #[test]
        fn each_key_finds_the_patterns_that_fit_it_while_they_come_and_go(
            patterns in proptest::collection::vec("([ab*#](\\.[ab*#]){0,5})?", 1..12),
            keys in proptest::collection::vec("([abc](\\.[abc]){0,6})?", 1..8),
            gone in proptest::collection::vec(any::<bool>(), 12),
        ) {
            let targets = some_targets(patterns.len());
            let mut tree = Patterns::new();
            for (pattern, target) in patterns.iter().zip(&targets) {
                tree.targets_mut(pattern.as_bytes()).unwrap().add(*target);
            }
            let mut bound: Vec<_> = patterns.iter().zip(&targets).collect();
            for round in 0..2 {
                for key in &keys {
                    let want: BTreeSet<_> =
                        bound.iter().filter(|(p, _)| fits(&all(p), &all(key))).map(|(_, t)| **t).collect();
                    prop_assert_eq!(matched(&mut tree, key), want, "key {:?}, round {}", key, round);
                }
                let (stay, go): (Vec<_>, Vec<_>) = bound.into_iter().zip(&gone).partition(|(_, gone)| !**gone);
                for ((pattern, target), _) in go {
                    tree.targets_mut(pattern.as_bytes()).unwrap().remove(*target);
                    tree.tidy(pattern.as_bytes());
                }
                bound = stay.into_iter().map(|(b, _)| b).collect();
            }
            for (pattern, target) in bound {
                tree.targets_mut(pattern.as_bytes()).unwrap().remove(*target);
                tree.tidy(pattern.as_bytes());
            }
            prop_assert_eq!(tree.len(), 1, "only the root is left");
        }
    }
}
