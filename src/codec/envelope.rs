//! The JSON envelopes of events and tasks, read over borrowed data.
