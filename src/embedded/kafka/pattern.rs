//! Regular expressions from clients: subscriptions of groups (KIP-848), lists of transactions (KIP-1152).
//!
//! The real broker compiles them with RE2/J; this is the same language but for rare corners. They match in linear time,
//! and a compiled one is bounded.

use regex::{Regex, RegexBuilder};

/// The most that a compiled pattern may take, in bytes.
const SIZE_LIMIT: usize = 1024 * 1024;

/// A pattern that must match the whole text; `None` where it is none, or too large.
pub(super) fn whole(pattern: &str) -> Option<Regex> {
    // The pattern must stand alone before it is put in brackets: `a)(b` is none.
    let compile = |pattern: &str| RegexBuilder::new(pattern).size_limit(SIZE_LIMIT).build().ok();
    compile(pattern)?;
    compile(&format!("\\A(?:{pattern})\\z"))
}
