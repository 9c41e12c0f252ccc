//! Lines of stdin, as bytes, each of a bounded length.

use std::io::{self, BufRead};

use bytes::Bytes;
use tokio::sync::mpsc;

/// The longest line that is read, in bytes; more than brokers take by default.
pub(crate) const LINE_MAX: usize = 16 << 20;

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Without its line feed.
    Whole(Bytes),
    /// Longer than [`LINE_MAX`]: passed over. How long it is.
    TooLong(u64),
}

/// The lines of stdin with their numbers, from 1.
///
/// Memory: two lots of about 256 KiB, or of one line where that is longer.
#[derive(Debug)]
pub(crate) struct Lines {
    lots: mpsc::Receiver<io::Result<Vec<Line>>>,
    lot: std::vec::IntoIter<Line>,
    number: u64,
}

impl Lines {
    /// Lines in a lot and bytes in a lot, at about which it is handed on.
    const LOT: usize = 1024;
    const LOT_BYTES: usize = 256 << 10;

    /// Reads stdin in a thread of its own: a read cannot be cancelled, and may last for ever.
    pub(crate) fn of_stdin() -> Self {
        let (sender, lots) = mpsc::channel(1);
        std::thread::spawn(move || {
            let mut input = io::BufReader::with_capacity(64 << 10, io::stdin().lock());
            read(&mut input, LINE_MAX, &sender);
        });
        Self { lots, lot: Vec::new().into_iter(), number: 0 }
    }

    /// The next line; `None` at the end. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<io::Result<(u64, Line)>> {
        loop {
            if let Some(line) = self.lot.next() {
                self.number += 1;
                return Some(Ok((self.number, line)));
            }
            match self.lots.recv().await? {
                Ok(lot) => self.lot = lot.into_iter(),
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

/// Reads to the end, or until nobody listens.
fn read(input: &mut io::BufReader<impl io::Read>, max: usize, sender: &mpsc::Sender<io::Result<Vec<Line>>>) {
    let (mut lot, mut bytes) = (Vec::new(), 0);
    loop {
        match line(input, max) {
            Ok(Some(line)) => {
                bytes += if let Line::Whole(b) = &line { b.len() } else { 0 };
                lot.push(line);
            }
            Ok(None) => {
                let _ = sender.blocking_send(Ok(lot));
                return;
            }
            Err(e) => {
                let _ = sender.blocking_send(Ok(lot)).and_then(|()| sender.blocking_send(Err(e)));
                return;
            }
        }
        // Handed on when there is enough of it, and when the next line may take its time.
        if lot.len() >= Lines::LOT || bytes >= Lines::LOT_BYTES || !input.buffer().contains(&b'\n') {
            if sender.blocking_send(Ok(std::mem::take(&mut lot))).is_err() {
                return;
            }
            bytes = 0;
        }
    }
}

/// One line; `None` at the end.
fn line(input: &mut impl BufRead, max: usize) -> io::Result<Option<Line>> {
    let (mut line, mut dropped) = (Vec::new(), 0u64);
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if available.is_empty() && line.is_empty() && dropped == 0 {
            return Ok(None);
        }
        let feed = available.iter().position(|b| *b == b'\n');
        let (part, used) = match feed {
            Some(at) => (available.get(..at).unwrap_or_default(), at + 1),
            None => (available, available.len()),
        };
        if dropped == 0 && line.len() + part.len() <= max {
            line.extend_from_slice(part);
        } else {
            dropped += (line.len() + part.len()) as u64;
            line = Vec::new();
        }
        let last = feed.is_some() || available.is_empty();
        input.consume(used);
        if last {
            return Ok(Some(if dropped == 0 { Line::Whole(line.into()) } else { Line::TooLong(dropped) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], max: usize, buffer: usize) -> Vec<Line> {
        let mut input = io::BufReader::with_capacity(buffer, text);
        std::iter::from_fn(|| line(&mut input, max).unwrap()).collect()
    }

    #[test]
    fn lines_are_bytes_between_line_feeds_and_the_last_one_needs_none() {
        let whole = |b: &'static [u8]| Line::Whole(Bytes::from_static(b));
        for buffer in [1, 2, 3, 64] {
            assert_eq!(
                lines(b"a\n\nb\r\n\xff\0c", 9, buffer),
                [whole(b"a"), whole(b""), whole(b"b\r"), whole(b"\xff\0c")]
            );
            assert_eq!(lines(b"", 9, buffer), []);
            assert_eq!(lines(b"\n", 9, buffer), [whole(b"")]);
        }
    }

    #[test]
    fn a_line_over_the_limit_is_passed_over_and_the_next_one_is_whole() {
        for buffer in [1, 3, 64] {
            let got = lines(b"12345\n1234\n123456789", 4, buffer);
            assert_eq!(got, [Line::TooLong(5), Line::Whole(Bytes::from_static(b"1234")), Line::TooLong(9)]);
        }
    }
}
