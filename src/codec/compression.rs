//! Compression of record batches: none, gzip, snappy (raw and xerial), lz4 frame, zstd.
