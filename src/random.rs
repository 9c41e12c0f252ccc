//! Numbers that follow from a seed: SplitMix64 (Steele, Lea, Flood 2014). Enough to spread and to repeat, not for secrets.

/// What the state grows by at each number.
pub(crate) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number that follows the state `state`.
pub(crate) const fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A row of numbers.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) const fn draw(&mut self) -> u64 {
        let drawn = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        drawn
    }
}

/// 128 bits as brokers write their ids: 22 characters of URL-safe base64.
#[cfg(feature = "embedded")]
pub(crate) fn id_text(high: u64, low: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = (u128::from(high) << 64) | u128::from(low);
    (0..22)
        .filter_map(|place| LETTERS.get((bits >> (6 * place) & 63) as usize))
        .map(|letter| char::from(*letter))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_is_that_of_splitmix64() {
        // The first numbers of the reference implementation from the seed 0.
        let mut row = SplitMix64::new(0);
        assert_eq!(row.draw(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(row.draw(), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(mix(STEP), 0x6e78_9e6a_a1b9_65f4);
    }
}
