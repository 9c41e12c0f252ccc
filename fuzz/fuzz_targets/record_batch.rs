//! One batch of any bytes. The first byte says whether the checksum is put right, so that the inside is reached.
//! Reading never panics and keeps to its memory; what was read whole is built again and reads the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use muslin::codec::record_batch::{BatchBuilder, BatchOptions, BatchView};
use muslin_fuzz::{LIMIT, mend, peak_of, read};

fuzz_target!(|data: &[u8]| {
    let Some((how, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if how & 1 == 0 {
        mend(&mut bytes);
    }
    let bytes = Bytes::from(bytes);
    let len = bytes.len();
    let (batch, peak) = peak_of(|| BatchView::parse(bytes));
    assert!(peak <= 4096, "the header alone took {peak} bytes");
    let Ok(batch) = batch else { return };
    let _ = format!("{batch:?}");
    assert!(batch.base_offset() <= batch.last_offset() && batch.last_offset() < batch.next_offset());

    // An iteration allocates nothing but an error; decompression keeps to its limit.
    let (records, peak) = peak_of(|| batch.records(LIMIT));
    let allowed = 3 * LIMIT + 32 * len + (5 << 20);
    assert!(peak <= allowed, "{} of {len} bytes took {peak}", batch.compression());
    let Ok(records) = records else { return };
    let (_, peak) =
        peak_of(|| records.iter().map(|r| r.map(|r| r.headers().count())).filter(Result::is_err).count());
    assert!(peak <= 16 * 1024, "iterating took {peak} bytes");
    for record in records.iter().flatten() {
        let _ = (record.key_bytes(), record.value_bytes(), record.control_marker());
    }

    let Ok(contents) = read(&batch) else { return };
    if contents.is_empty() || batch.append_time().is_some() {
        return;
    }
    let mut options = BatchOptions::default();
    options.base_offset = batch.base_offset();
    options.max_bytes = 1 << 30;
    let mut builder = BatchBuilder::new(options);
    let mut next = batch.base_offset();
    for (offset, r) in &contents {
        assert!(*offset >= next, "offset {offset} after {next}");
        let Ok(gap) = u32::try_from(offset.get() - next.get()) else { return };
        builder.skip_offsets(gap);
        next = offset.next();
        let headers = r.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        // What is read may have times that are not written.
        if builder
            .push(muslin::Timestamp(r.timestamp), r.key.as_deref(), r.value.as_deref(), headers)
            .is_err()
        {
            return;
        }
    }
    let again = BatchView::parse(builder.finish().unwrap()).unwrap();
    assert_eq!(read(&again).unwrap(), contents);
});
