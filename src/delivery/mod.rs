//! The delivery core, pure: which deliveries are settled, in what order keys run, when a retry is due.
