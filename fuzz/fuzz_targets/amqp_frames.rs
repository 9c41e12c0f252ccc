//! Any bytes as what a broker sends: every frame is refused, or goes on in a form that passes unchanged a second time, is
//! no longer than it was and costs little memory. The first byte says whether lengths are put right first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muslin::amqp::fuzzing::first_frame;
use muslin_fuzz::peak_of;

/// Type, channel and size before the payload; one byte behind it.
const HEAD: usize = 7;

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if how & 1 == 1 && bytes.len() > HEAD {
        bytes[0] = 1 + bytes[0] % 2;
        let size = (bytes.len() - HEAD - 1) as u32;
        bytes[3..HEAD].copy_from_slice(&size.to_be_bytes());
        *bytes.last_mut().unwrap() = 0xCE;
    }
    let mut at = 0;
    while at < bytes.len() {
        let left = &bytes[at..];
        let (step, peak) = peak_of(|| first_frame(left));
        assert!(peak <= 4 * left.len() + 1024, "{peak} bytes for {}", left.len());
        let Ok(Some((len, sent))) = step else { break };
        assert!(len > HEAD && len <= left.len() && sent.len() > HEAD && sent.len() <= len);
        // The type and the channel stay, and the length is what it says.
        assert_eq!(sent[..3], left[..3]);
        let size = sent[3..HEAD].iter().fold(0, |n, &b| n << 8 | usize::from(b));
        assert_eq!((HEAD + size + 1, sent[HEAD + size]), (sent.len(), 0xCE));
        // What was mended is whole: looked at again it passes as it is.
        assert_eq!(first_frame(&sent).unwrap(), Some((sent.len(), sent.clone())));
        at += len;
    }
});
