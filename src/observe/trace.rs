//! The W3C trace context: one short header that ties a record to the work that it came from.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind, Result};

/// A `traceparent` (W3C Trace Context, 3.2): which trace a piece of work belongs to, and which span of it is the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: u128,
    parent_id: u64,
    sampled: bool,
}

impl TraceParent {
    /// The header's name.
    pub const HEADER: &'static str = "traceparent";

    /// A trace and its parent span, as a tracing library gives them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where one of them is 0, which the standard forbids.
    pub fn new(trace_id: u128, parent_id: u64, sampled: bool) -> Result<Self> {
        if trace_id == 0 || parent_id == 0 {
            return Err(Error::new(
                ErrorKind::Config,
                "a traceparent's trace id and parent id must not be 0",
            ));
        }
        Ok(Self { trace_id, parent_id, sampled })
    }

    /// The trace.
    #[must_use]
    pub const fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The span that the work was done under.
    #[must_use]
    pub const fn parent_id(&self) -> u64 {
        self.parent_id
    }

    /// Whether the trace is recorded.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.sampled
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, u8::from(self.sampled))
    }
}

impl FromStr for TraceParent {
    type Err = Error;

    /// Reads version 00, and of later versions what they have in common with it (3.2.4).
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] shows the text.
    fn from_str(text: &str) -> Result<Self> {
        read(text).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            Error::new(
                ErrorKind::Malformed,
                format!("{shown:?} is no traceparent; expected 00-32 hex digits-16 hex digits-2 hex digits"),
            )
        })
    }
}

fn read(text: &str) -> Option<TraceParent> {
    let hex = |part: &str, len: usize| {
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (part.len() == len && part.bytes().all(lower)).then(|| u128::from_str_radix(part, 16).ok()).flatten()
    };
    let mut parts = text.split('-');
    let version = hex(parts.next()?, 2)?;
    let trace_id = hex(parts.next()?, 32)?;
    let parent_id = u64::try_from(hex(parts.next()?, 16)?).ok()?;
    let flags = hex(parts.next()?, 2)?;
    // Version ff is forbidden, and version 00 ends here.
    if version == 0xff || (version == 0 && parts.next().is_some()) {
        return None;
    }
    TraceParent::new(trace_id, parent_id, flags & 1 == 1).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_standards_example_is_read_and_written() {
        let parent: TraceParent = TEXT.parse().unwrap();
        assert_eq!(parent.trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.parent_id(), parent.is_sampled()), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(parent.to_string(), TEXT);
        let later = format!("cc{}-what-comes", &TEXT[2..]);
        assert_eq!(later.parse::<TraceParent>().unwrap(), parent);
    }

    #[test]
    fn what_breaks_the_rules_is_refused_with_its_text() {
        for text in [
            "",
            "00",
            &TEXT[..54],
            &TEXT.to_uppercase(),
            &format!("{TEXT}-more"),
            &format!("ff{}", &TEXT[2..]),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            let e = text.parse::<TraceParent>().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed);
            assert!(e.to_string().contains(&text.chars().take(10).collect::<String>()), "{e}");
        }
        assert!(TraceParent::new(0, 1, true).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in 1u128.., parent in 1u64.., sampled: bool) {
            let it = TraceParent::new(trace, parent, sampled).unwrap();
            prop_assert_eq!(it.to_string().parse::<TraceParent>().unwrap(), it);
        }

        #[test]
        fn no_text_does_harm(text in ".{0,80}") {
            let _ = text.parse::<TraceParent>();
        }
    }
}
