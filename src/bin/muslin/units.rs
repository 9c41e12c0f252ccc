//! Durations and sizes as people write them: `5m`, `30s`, `100ms`, `64k`.

use std::time::Duration;

/// The longest duration that is taken: what a broker can count in its milliseconds, about 49 days.
pub(crate) const LONGEST: Duration = Duration::from_millis(u32::MAX as u64);

/// Parses `100ms`, `30s`, `5m`, `2h`, `1d`, and sums of them such as `1m30s`; a fraction is allowed (`1.5s`).
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is no duration; expected a number and ms, s, m, h or d, as in 30s or 1m30s");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(wrong()),
        };
        sum += number.parse::<f64>().map_err(|_| wrong())? * seconds;
        rest = after;
    }
    // Whole microseconds: binary fractions of a second would show.
    let micros = (sum * 1e6).round();
    if micros > LONGEST.as_micros() as f64 {
        return Err(format!("`{text}` is longer than 49 days"));
    }
    Ok(Duration::from_micros(micros as u64))
}

/// As [`duration`], not zero.
pub(crate) fn some_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("`{text}` is no time at all")),
        d => Ok(d),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, millis) in [
            ("100ms", 100),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("1m30s", 90_000),
            ("1.5s", 1_500),
            (" 0s ", 0),
            ("49d", 49 * 86_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5x", "-5s", "5 m", "1..2s", "5sm", "ms5", "∞s", "1e3s"] {
            assert!(duration(text).unwrap_err().contains("is no duration"), "{text}");
        }
        for text in ["50d", "99999999999999999999999999d"] {
            assert!(duration(text).unwrap_err().contains("longer than"), "{text}");
        }
        assert!(some_duration("0ms").is_err());
    }
}
