//! Tests that are run on the embedded Kafka and on a real one, and what their errors say.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(unreachable_pub, reason = "a module of several test programs")]

use muslin::{Error, ErrorKind};

/// A certain error of this kind with these words.
#[track_caller]
pub fn says(error: &Error, kind: ErrorKind, words: &[&str]) {
    let report = error.report();
    assert_eq!((error.kind(), error.is_ambiguous()), (kind, false), "{report}");
    for word in words {
        assert!(report.contains(word), "{word:?} is not in: {report}");
    }
}

/// Each test twice: with `Bed::embedded()` and with `Bed::real()` of the program.
macro_rules! on_both {
    ($(async fn $name:ident($bed:ident) $body:block)*) => {
        $(async fn $name($bed: Bed) $body)*
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Bed::embedded().await).await;
            })*
        }
        mod real {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Bed::real().await).await;
            })*
        }
    };
}
