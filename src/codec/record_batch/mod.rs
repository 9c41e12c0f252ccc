//! Record batches of format v2 (KIP-98): a view over fetched bytes, and a builder that writes the wire form.
