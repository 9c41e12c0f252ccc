//! The key store: an effect happens once per key. `claim -> complete(outcome) | release`.
